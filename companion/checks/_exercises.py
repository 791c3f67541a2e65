"""Every exercise of the book: the source of checks.<name>, of the page that lists them, and of the command line.

tests/test_answers.py compares it with the notebooks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import (
    concepts,
    conventions,
    encoders,
    experiments,
    inside,
    language,
    outlook,
    processes,
    questions,
    responses,
    several,
    shipping,
    steps,
    teachers,
)
from ._choice import choice as choice  # for rows of the kinds predict, diagnose and choose

LEVELS = {1: "one formula, one line", 2: "a formula with a trap in it", 3: "several parts that must fit"}
KINDS = ("write", "predict", "diagnose", "choose")


@dataclass(frozen=True)
class Exercise:
    """name: of the function in the chapter, in a file of answers, and of its check: checks.<name>.

    check(function) prints ✓, ✗ with a hint, or ○ and the name. kind: write (a function), or one whose function takes
    nothing and returns an answer: predict, diagnose, choose.
    """

    name: str
    chapter: str
    level: int
    topic: str
    title: str
    check: Callable
    kind: str = "write"

    @property
    def label(self) -> str:
        """Its label in the chapter, and its anchor in the page."""
        return "ex-" + self.name.replace("_", "-")


def _row(name, chapter, level, topic, title, check, *what, kind="write") -> Exercise:
    checked = (lambda attempt: check(attempt, *what)) if what else check
    return Exercise(name, chapter, level, topic, title, checked, kind)


EXERCISES = (
    _row("word_loss", "01_background", 2, "losses", "Teach it one word", concepts.word_loss),
    _row("soft_loss_of", "01_background", 2, "losses", "The soft loss of one image", concepts.soft_loss_of),
    _row("credit", "01_background", 1, "measuring", "Read a report", choice("credit", (-9.5, 4.4), {
        (0, 9.5): "the accuracy falls from the teacher to the small network alone: it has a minus sign.",
        (0, -5.1): "that is the report's own number, which mixes both: end the first part at the baseline.",
        (0, 4.4): "this is distillation's part; the smaller network comes first.",
        (1, -4.4): "the taught student is better than the baseline: after less before.",
        (1, -5.1): "measure distillation from the baseline, not from the teacher.",
        (1, -9.5): "this is the architecture's part; distillation comes second.",
    }, within=0.01), kind="diagnose"),
    _row("entropy", "02_concepts", 1, "soft targets", "Entropy of each row", concepts.entropy),
    _row("same_image", "02_concepts", 3, "soft targets", "Knowledge, or noise?", concepts.same_image),
    _row("nearest", "02_concepts", 1, "measuring", "Whose student is nearest?", choice("nearest", "B", {
        "A": "subtract each teacher's own entropy from the cross-entropy, and look again.",
        "C": "the least cross-entropy, but it contains the teacher's entropy, and C's teacher is the surest.",
    }), kind="choose"),
    _row("relations", "02_concepts", 2, "losses", "A table of relations", concepts.relations),
    _row("soften", "03_algorithm", 1, "soft targets", "Soften logits", responses.soften),
    _row("distillation_loss", "03_algorithm", 3, "losses", "The loss of the ten lines", responses.distillation_loss),
    _row("training_step", "03_algorithm", 3, "training", "One training step", steps.training_step),
    _row("diagnose_runs", "03_algorithm", 2, "training", "What went wrong in these four runs?", choice(
        "diagnose_runs", right=("teacher only", "freeze", "student only", "unclear"),
        hints={
            (0, "student only"): "with the student alone softened, its logits come out too large, and it is too sure.",
            (0, "freeze"): "its teacher is as good after training as before.",
            (0, "unclear"): "a fitted temperature below 1, with a teacher as good as before, has a cause.",
            (1, "teacher only"): "unsure, yes; but what has happened to its teacher?",
            (1, "student only"): "a student that alone is softened is too sure, and no teacher gets worse by it.",
            (1, "unclear"): "its teacher is right on a fifth of the images after training. Is that so in a correct run?",
            (2, "teacher only"): "with the teacher alone softened, its logits come out too small, and it is unsure.",
            (2, "freeze"): "its teacher is as good after training as before.",
            (2, "unclear"): "a fitted temperature above the baseline's has a cause.",
            (3, "teacher only"): "with the teacher alone softened, the fitted temperature lies below 1.",
            (3, "student only"): "with the student alone softened, the fitted temperature lies above the baseline's.",
            (3, "freeze"): "its teacher is as good after training as before.",
        },
    ), kind="diagnose"),
    _row("kd_loss", "04_mathematics", 2, "losses", "KL divergence times T²", responses.kd_loss),
    _row("kd_gradient", "04_mathematics", 2, "losses", "The gradient by hand", responses.kd_gradient),
    _row("high_temperature_loss", "04_mathematics", 2, "losses", "The limit of high temperature",
         responses.high_temperature_loss),
    _row("read_the_way", "04_mathematics", 2, "losses", "Read the way", choice("read_the_way", ("A", "B", 0.81, 0.03), {
        (0, "B"): "the factor 1 − s makes the teacher's end, s = 0, count most: where does B vary most?",
        (0, "C"): "C varies nearly alike along the way, so its two directions are nearly alike.",
        (1, "A"): "the reverse KL has the factor s: where does A vary most?",
        (1, "C"): "C varies nearly alike along the way, so its two directions are nearly alike.",
        (2, 1.34): "multiply by 1 − s, which is 1, ½ and 0, before you add.",
        (2, 0.53): "that is the reverse KL, with s in place of 1 − s.",
        (3, 3): "that is T·KL; the soft loss is T²·KL, which is T times that.",
        (3, 0.0003): "T·KL is 3, so T²·KL is T times that: one factor T, not two.",
    }, within=0.02), kind="diagnose"),
    _row("paired_interval", "05_project", 2, "measuring", "An interval for ten pairs", experiments.paired_interval),
    _row("view_loss", "05_project", 2, "training", "The step on a view", steps.view_loss),
    _row("distils", "05_project", 2, "measuring", "Which program distils?", choice("distils", "B", {
        "A": "train its student beside the ruined teacher, too: does a single weight change?",
        "C": "it asks its teacher, but does it listen? Train its student beside the ruined teacher, too.",
    }), kind="diagnose"),
    _row("evidence", "05_project", 2, "measuring", "Which report is evidence?", choice("evidence", "C", {
        "A": "one pair may be the lucky one: how would you know its spread?",
        "B": "the student alone was trained at the other side's learning rate: its best may be elsewhere.",
        "D": "the settings were chosen by test accuracy, and the distilled student had six times as many to choose from.",
    }), kind="choose"),
    _row("transfer_information", "06_applications", 3, "measuring", "What a transfer set can tell",
         concepts.transfer_information),
    _row("change_one_thing", "06_applications", 2, "transfer set", "Change one thing", choice(
        "change_one_thing", ("d", "a", "b", "c"), {
            (place, letter): hint
            for place, right in enumerate("dabc")
            for letter, hint in {
                "a": "noise: what of its answers, its directions and its place is better than in clothes, what worse?",
                "b": "named classes: which of the two, I or soft answers, do they lack?",
                "c": "turned digits: how much do their answers differ, and how many units do they switch?",
                "d": "moved clothes: they keep their contrast, so what do place and I do?",
            }.items()
            if letter != right
        }), kind="predict"),
    _row("which_to_use", "06_applications", 2, "transfer set", "Which images, which teacher?", choice(
        "which_to_use", ("C", "both", 0.556), {
            (0, "A"): "its answers hardly differ: a student can copy them without looking at the image.",
            (0, "B"): "it varies in two directions: in how many may digits, or your images, differ?",
            (0, "D"): "it switches many units: the answers come from other pieces of the teacher's function.",
            (1, "labels"): "is α = 0 the weight whose students are most often right on the judged images?",
            (1, "answers"): "a student of the answers alone copies its teacher's mistakes.",
            (2, 0.444): "that is the most that the label can lose: what is left of 1?",
            (2, 0.6): "the label's pull has a weight, too: 1 − α.",
            (2, 0.889): "the teacher's pull has the factor T.",
            (2, 0.4): "that is the teacher's strongest pull, αT: set the label's against it.",
        }, within=0.01), kind="choose"),
    _row("whose_merit", "06_applications", 1, "measuring", "Whose merit?", choice("whose_merit", (0, 1, 4, 56448), {
        (0, -30000): "that many were saved by choosing the small architecture.",
        (0, 30000): "that many were saved by choosing the small architecture.",
        (1, 3): "alone and distilled are the same operations: the speed is the architecture's.",
        (1, 0): "a factor: no change is 1.",
        (2, -8): "that is both parts together: subtract what the architecture did.",
        (2, -12): "that is the architecture's part.",
        (2, -4): "distilled less alone: it gives accuracy back.",
        (3, 1152): "those are its weights: each is used once at every place of the output.",
        (3, 18816): "the kernel is square: 3 · 3 weights for each pair of channels.",
        (3, 6272): "a kernel has 3 · 3 weights for each pair of channels, not one.",
    }, within=0.01), kind="diagnose"),
    _row("three_numbers", "07_tools", 2, "losses", "Three numbers came back", choice(
        "three_numbers", (0.0588, 0.985), conventions.WRONG_WEIGHTS, within=0.005,
    ), kind="diagnose"),
    _row("mend_loss", "07_tools", 2, "losses", "Two mistakes", conventions.mend_loss),
    _row("choose_tool", "07_tools", 1, "tools", "Choose the tool", choice(
        "choose_tool", ("EasyDistill", "TRL DistillationTrainer", "TRL GOLDTrainer"), conventions.WRONG_TOOLS,
    ), kind="choose"),
    _row("will_it_fit", "07_tools", 2, "tools", "Will it fit?", choice(
        "will_it_fit", (68, 82.1, 77.6), conventions.WRONG_GIGABYTES, within=0.012,
    ), kind="predict"),
    _row("regret", "08_outlook", 2, "measuring", "What choosing costs", outlook.regret),
    _row("steps_or_images", "08_outlook", 1, "measuring", "Steps or images?", choice(
        "steps_or_images", ("images", "steps"), {
            (0, "steps"): "it agrees on nearly all that it was told: more of the same teaches it little.",
            (1, "images"): "it has not yet taken in what it was told, and loses little on new images.",
        }), kind="diagnose"),
    _row("what_is_missing", "08_outlook", 1, "measuring", "What does the forecast lack?", choice(
        "what_is_missing", ("quantity", "nothing", "rival", "condition"), {
            (0, "condition"): "it says with how many images. How would you read off whether it mattered?",
            (0, "rival"): "before it can have a rival: which number would decide?",
            (0, "nothing"): "which number would show you that it was wrong?",
            (1, "quantity"): "the gain over labels, in points, is one.",
            (1, "condition"): "student, teachers and the number of images are named.",
            (1, "rival"): "the second half of its sentence says when it has lost.",
            (2, "quantity"): "the gain over labels, in points, is one.",
            (2, "condition"): "student, teachers and the number of images are named.",
            (2, "nothing"): "which of the results that anybody expects would prove it wrong?",
            (3, "quantity"): "the gain over labels, in points, is one.",
            (3, "rival"): "it names the outcome under which it has lost. Could you set up the measurement?",
            (3, "nothing"): "could you set up the measurement? Whose gain, and with how many images?",
        }), kind="diagnose"),
    _row("four_losses", "09_faq", 1, "losses", "Four losses, four mistakes",
         choice("four_losses", ("log_target", "softmax", "batchmean", "twice"), {
             (0, "softmax"): "probabilities where logarithms are due give a finite value. What has no logarithm?",
             (0, "twice"): "a second softmax only bounds the loss. What has no logarithm?",
             (0, "batchmean"): "a divisor makes no NaN here. What has no logarithm?",
             (1, "log_target"): "a logarithm of a logarithm is NaN. Which mistake makes a KL of p with p negative?",
             (1, "twice"): "with softmax twice on both sides a KL at agreement is 0.",
             (1, "batchmean"): "a divisor changes no sign.",
             (2, "softmax"): "the length of the text is not in it. What is divided by what?",
             (2, "log_target"): "the length of the text is not in it. What is divided by what?",
             (2, "twice"): "the length of the text is not in it. What is divided by what?",
             (3, "softmax"): "this is the hard loss, cross_entropy: what did it get in place of logits?",
             (3, "log_target"): "the hard loss has labels and no teacher. What did it get in place of logits?",
             (3, "batchmean"): "a divisor scales a loss; a loss near 0 would stay near 0.",
         }), kind="diagnose"),
    _row("wrong_teacher", "09_faq", 1, "training", "What is wrong with this teacher?",
         choice("wrong_teacher", ("cache", "mode", "optimiser"), {
             (0, "mode"): "in training mode its answers vary, but most would still name the label.",
             (0, "optimiser"): "this is the first batch: nothing has been moved yet.",
             (1, "cache"): "answers that were stored do not change the network.",
             (1, "optimiser"): "an optimiser moves weights, and here they are what they were.",
             (2, "cache"): "answers that were stored do not change the network.",
             (2, "mode"): "training mode moves batch norm's averages, and no weight.",
         }), kind="diagnose"),
    _row("masked_mean", "09_faq", 2, "losses", "A mean over counted positions", several.masked_mean),
    _row("fair_gap", "09_faq", 2, "measuring", "A fair report", experiments.fair_gap),
    _row("attention_loss", "10_features", 2, "losses", "Where is it active?", inside.attention_loss),
    _row("who_notices", "10_features", 2, "losses", "Which loss notices?", choice(
        "who_notices", ("attention", "hint"), {
            (0, "hint"): "the translated features move with the maps, and the teacher's do not.",
            (0, "similarity"): "a row is divided by its own length, but in the other rows this image's column has grown.",
            (0, "rkd"): "distances to an image that has moved away from the origin change, each by its own amount.",
            (1, "attention"): "a sum over the channels does not depend on their order.",
            (1, "similarity"): "a product of two images is a sum over the channels: their order does not matter.",
            (1, "rkd"): "distances and angles between images are made of sums over the channels.",
        }), kind="predict"),
    _row("whose_gain", "10_features", 1, "measuring", "What does the new loss add?", choice(
        "whose_gain", (0.2, "no difference seen"), {
            (0, 4.6): "most of it is owed to the teacher's answers, which both of the last two rows have.",
            (0, 4.4): "that is what KD adds to the labels. What comes on top?",
            (0, 2.1): "beside labels, yes. But KD is there already: compare the two rows that have it.",
            (0, -2.3): "these two rows differ in two things: compare rows that differ in one.",
            (0, 2.5): "these two rows differ in two things: compare rows that differ in one.",
            (1, "beats"): "the interval reaches below 0.",
            (1, "loses to"): "the interval reaches above 0.",
        }, within=0.01), kind="diagnose"),
    _row("swap_layers", "10_features", 2, "measuring", "What does the swap tell?", choice(
        "swap_layers", (1.9, -2.5, "features"), {
            (0, 2.2): "its own layer differs in more than the answers: start from the one that learned anew.",
            (0, 0.3): "that is what learning anew brings, still from labels.",
            (1, 2.5): "the new loss less KD: who is ahead?",
            (1, -3.0): "their own layers learned differently: let both be read by layers that learned by KD.",
            (1, -2.1): "here labels taught both readings: go to the column of KD.",
            (1, -0.8): "KD's features need the new layer, too, or you compare two readings.",
            (2, "reading"): "with equal readings by KD, how much of the 3.0 is still there?",
        }, within=0.01), kind="diagnose"),
    _row("lost_and_regained", "11_teachers", 1, "measuring", "Lost and regained", teachers.lost_and_regained),
    _row("gives_away", "11_teachers", 2, "soft targets", "What does this teacher give away?",
         choice("gives_away", (0, -1, 100), {
             (0, 2): "that is the coefficient of the product: its mean times one sign is 0.",
             (0, -1): "the single sign in the answer is the other one.",
             (0, 1): "the single sign in the answer is the other one.",
             (1, 0): "the answer has that sign alone in it: average over the four cases.",
             (1, 1): "mind the minus in front of it.",
             (1, 2): "that is the coefficient of the product.",
             (2, 50): "the product counts twice as much as the single sign: can the sign turn?",
             (2, 75): "go through the four cases: 1, −1, −3, 3. Compare each sign with its label.",
         }, within=0.001), kind="predict"),
    _row("one_copy", "11_teachers", 2, "soft targets", "One copy instead of thirteen", choice("one_copy", 400, {
        120: "that copy still guesses, and which signs its names go with is chance.",
        240: "it shows the signs, but is wrong on a third; of ten students only one then ended above 90 %.",
        600: "its names are nearly the labels, and from labels few students of eight units find the signs.",
    }), kind="predict"),
    _row("first_suspect", "11_teachers", 1, "tools", "Which student do you test first?",
         choice("first_suspect", "A", {
             "B": "the filter is the same, and the effect was not seen with another base model.",
             "C": "it learned nothing from the faulty teacher.",
         }), kind="choose"),
    _row("unasked_answer", "12_data", 1, "transfer set", "An answer nobody asked for", choice("unasked_answer", 3.5, {
        3: "that is the teacher's own answer: no question told its two weights apart.",
        7: "that is the answer to (1, 1); (1, 0) leaves the second weight out.",
        4: "that is the teacher's second weight: no question told it from the first.",
        0: "the two questions do tell it the sum of the two weights.",
        5: "the length of the weights is not an answer: multiply them with the input.",
    }, within=0.01), kind="predict"),
    _row("worth_of", "12_data", 2, "transfer set", "Worth in new images", questions.worth_of),
    _row("statistics_gap", "12_data", 2, "transfer set", "How far from what the teacher remembers",
         questions.statistics_gap),
    _row("membership_auc", "12_data", 2, "measuring", "A share of pairs", questions.membership_auc),
    _row("judge_claim", "13_methods", 2, "measuring", "Judge a claim", choice(
        "judge_claim", ("beats", "no difference seen", 3, 1, 4, 2), {
            (0, "no difference seen"): "are the runs paired? Give both lists to paired_interval.",
            (0, "loses to"): "the difference is turned round: new less old.",
            (1, "beats"): "that is 95 %; with ten comparisons the level is 1 − 0.05/10.",
            (1, "loses to"): "the difference is turned round: new less old.",
            (2, 1): "A had equal tries; which runs is it judged on?",
            (2, 2): "A has an interval; which runs is it of?",
            (2, 4): "A has three sets and two students; which runs is it judged on?",
            (3, 2): "B has an interval; what did KD get to tune?",
            (3, 3): "B's runs are fresh; what did KD get to tune?",
            (3, 4): "B has three sets and two students; what did KD get to tune?",
            (4, 1): "C's searches were equal; where was it tried?",
            (4, 2): "C has an interval; where was it tried?",
            (4, 3): "C's runs are fresh; where was it tried?",
            (5, 1): "D's searches were equal; how far may its lead be off?",
            (5, 3): "D's runs are fresh; how far may its lead be off?",
            (5, 4): "D has three sets and two students; how far may its lead be off?",
        }), kind="diagnose"),
    _row("tune_dkd", "13_methods", 2, "measuring", "Tune a rival", choice(
        "tune_dkd", (4.0, 1.0, "beats", 8.0, 0.5, "no difference seen"), {
            (1, 2.0): "that is where the walk begins: did it move when a neighbour was better?",
            (2, "loses to"): "subtract KD from DKD.",
            (2, "no difference seen"): "are the runs paired, DKD first? The lead is about a point.",
            (3, 2.0): "that is where the walk begins: did it move when a neighbour was better?",
            (3, 4.0): "at T = 4 the walk isn't at its end: are its nine tries used?",
            (4, 0.25): "that is where the walk begins: did it move when a neighbour was better?",
            (5, "beats"): "subtract KD from DKD, with the ConvNet's runs.",
            (5, "loses to"): "is 0 outside the interval?",
        }, within=0.01), kind="diagnose"),
    _row("which_method", "13_methods", 2, "tools", "Choose a method", choice("which_method", ("kd", "none", "features"), {
        (0, "features"): "an API that gives probabilities gives no features.",
        (0, "none"): "soft answers can be had, and taught more than labels in every cell of the bench.",
        (1, "kd"): "what would the new loss have to beat, and by how much did one in twenty differ by luck?",
        (1, "features"): "nothing is said about features; is there a difference to be explained at all?",
        (2, "kd"): "without logits of common classes there is nothing to soften.",
        (2, "none"): "there is something that both networks have: what lies inside.",
    }), kind="choose"),
    _row("next_token_loss", "14_tokens", 2, "language", "Shift, mask, divide", language.next_token_loss),
    _row("bits_a_character", "14_tokens", 1, "language", "Two tokenisers, one text",
         choice("bits_a_character", (0.8, 1.0), {
             (0, 4): "that is bits a token, and the two models have tokens of different length.",
             (0, 2): "that is the number of tokens.",
             (0, 8): "those are the bits of the whole text; divide by its ten characters.",
             (0, 0.55): "that is in nats: take the logarithm to the base 2.",
             (1, 2.5): "that is bits a token, and the two models have tokens of different length.",
             (1, 10): "those are the bits of the whole text; divide by its ten characters.",
             (1, 0.7): "that is in nats: take the logarithm to the base 2.",
         }, within=0.02), kind="predict"),
    _row("text_or_answers", "14_tokens", 1, "language", "Text or answers?",
         choice("text_or_answers", ("answers", "text", "text"), {
             (0, "text"): "the teacher knows this text, so in bits the two are alike; what else is asked here?",
             (1, "answers"): "compare the teacher with the copy after its lesson, and not before it.",
             (2, "answers"): "the teacher knows this text, so in bits the two are alike; which one costs money?",
         }), kind="choose"),
    _row("three_vocabularies", "14_tokens", 1, "language", "Three pairs of vocabularies",
         choice("three_vocabularies", ("cut", "reorder", "texts"), {
             (0, "reorder"): "columns 0 to 2 have the right order already; what is there beside them?",
             (0, "texts"): "the two cut every text alike, since <tool> stands in none.",
             (1, "cut"): "both have three columns; column 1 is at on one side and t on the other.",
             (1, "texts"): "the same tokens, cut alike: every column has a partner, if not under its own number.",
             (2, "cut"): "the student has no token at, so it cuts texts otherwise.",
             (2, "reorder"): "which column of the student would be the partner of the teacher's at?",
         }), kind="diagnose"),
    _row("lost_share", "15_own_words", 1, "transfer set", "Slip less, or recover?", choice("lost_share", (20, "back"), {
        (0, 2): "that is the error along the teacher's words; left alone it is lost for longer than a word.",
        (0, 0.2): "in per cent.",
        (0, 25): "that is ε/r: whoever is lost already cannot slip again, so divide by ε + r.",
        (0, 80): "that is the share that is on track.",
        (0, 10): "ε and r are not averaged: find ℓ where as many recover in a step as are newly lost.",
        (1, "slip"): "put both into the formula: 1.5/9.5 against 2/13.",
    }, within=0.01), kind="predict"),
    _row("slip_log", "15_own_words", 1, "transfer set", "Read a log of slips", choice("slip_log", (10, 10, "B"), {
        (0, 50): "that is the share of all tokens that are slips; ε counts only tokens right after one on track.",
        (0, 5): "one in twenty: leave out the tokens that come right after a slip, they had no chance to be ε's.",
        (0, 12.5): "one in eight: the last two tokens come after one on track, too.",
        (0, 0.1): "in per cent.",
        (1, 90): "that is the share that slips again; r is the rest.",
        (1, 100): "it came back once, but after how many slips?",
        (1, 0.1): "in per cent.",
        (2, "A"): "it slips more often, but what is left to practise once it has slipped?",
    }, within=0.01), kind="diagnose"),
    _row("rows_width", "16_small", 2, "language", "How short may a row be?", encoders.rows_width),
    _row("recall_at", "16_small", 2, "measuring", "How much of the teacher's list", encoders.recall_at),
    _row("which_encoder", "16_small", 2, "tools", "Which encoder?",
         choice("which_encoder", ("tfidf", "static", "teacher"), {
             (0, "static"): "in which of its lessons did the student meet this part's number?",
             (0, "teacher"): "did its lessons have this part's number, and has that anything to do with meaning?",
             (1, "tfidf"): "with 100 or 200 labels, who was behind on all three jobs of 16.3?",
             (1, "teacher"): "ten million texts at the teacher's pace: how many days are that on this machine?",
             (2, "static"): "what is the student's vector of the second caption, if that of the first is known?",
             (2, "tfidf"): "will the next caption have the very pairs of words that were counted?",
         }), kind="choose"),
    _row("straight_through", "17_shipping", 2, "size", "Round, and let the gradient through",
         shipping.straight_through),
    _row("way_out", "17_shipping", 1, "tools", "Three that went wrong on the way out", choice(
        "way_out", ("mode", "batch", "warm-up"), {
            (0, "batch"): "one image at a time it works, too, only with another answer. What depends on the others?",
            (0, "warm-up"): "time is not the matter here, the answers are.",
            (0, "range"): "a range that is too narrow cuts off, whatever else is in the batch.",
            (1, "mode"): "in another mode it would answer, and wrongly. What has the example fixed?",
            (1, "warm-up"): "it does not answer late, it does not answer.",
            (1, "range"): "numbers out of range are cut off, not refused.",
            (2, "mode"): "every call would be slow, then.",
            (2, "batch"): "every call has one image. What is different in the first?",
            (2, "range"): "a range changes the answers, not the time of the first of them.",
        }), kind="diagnose"),
    _row("share_loss", "18_scaling", 2, "training", "A process's share", processes.share_loss),
    _row("checkpoint_plan", "18_scaling", 2, "training", "A checkpoint for 256 GPUs", choice(
        "checkpoint_plan", (1.53, 3.27, "schedule"), {
            (0, 1.08): "twice the product stands under the root.",
            (0, 24.5): "that is for one GPU; of 256 one fails 256 times as often.",
            (0, 5511): "that is in seconds.",
            (1, 1.63): "that is the writing alone; lost work costs as much.",
            (1, 4.9): "a failure loses half of an interval on average.",
            (1, 0.0327): "in per cent.",
            (2, "averages"): "without AdamW's averages the first step is wrong already, and loss 2 shows it.",
            (2, "order"): "other examples show in loss 1.",
            (2, "rate"): "a wrong rate spoils the first step, and loss 2 shows it.",
        }, within=0.02), kind="diagnose"),
    _row("draws_loss", "18_scaling", 3, "training", "A loss from drawn tokens", processes.draws_loss),
    _row("draws_worth", "19_answers", 2, "soft targets", "What are the draws worth?", encoders.draws_worth),
    _row("fifty_checked", "19_answers", 2, "measuring", "Fifty answers, checked", choice(
        "fifty_checked", (11.1, 384, "no"), {
            (0, 5.7): "that is √(p(1 − p)/n): 1.96 times as much on either side.",
            (0, 22.2): "that is the whole interval: plus or minus half of it.",
            (0, 13.9): "that is for a share of a half; here it is 0.8.",
            (0, 0.111): "in points, that is in per cent.",
            (1, 139): "half as wide means four times as many; how much narrower is 4 than 11.1?",
            (1, 600): "that is for a share of a half; here it is 0.8.",
            (2, "yes"): "four more of fifty: how often does luck do that on the examples where the two differ?",
        }, within=0.02), kind="predict"),
    _row("which_answer", "19_answers", 2, "soft targets", "One word, many words, or the probabilities?", choice(
        "which_answer", ("label", "top k", "draws"), {
            (0, "top k"): "this server gives no probabilities.",
            (0, "draws"): "one answer a letter is all that there is: how much noise has a single draw?",
            (1, "label"): "a label says which side the teacher is on. Does it say how far?",
            (1, "draws"): "how many draws are needed until the noise is small, and what do they cost?",
            (2, "label"): "temperature 0 asked fifty times gives fifty times the same word.",
            (2, "top k"): "this server gives no probabilities.",
        }), kind="choose"),
    _row("balanced_targets", "20_blind", 2, "soft targets", "Correct a teacher's class shares",
         outlook.balanced_targets),
    _row("cat_or_lynx", "20_blind", 2, "soft targets", "Cat or lynx?", choice("cat_or_lynx", (0.692, 0.818, "cat"), {
        (0, 0.2): "that is the teacher's own answer: its prejudice is still in it.",
        (0, 0.5): "the odds are 1 to 4 and the prejudice is 1 to 9: what is left of the one over the other?",
        (0, 0.9): "9 multiplies the odds of the lynx, which were 1 to 4, not 1 to 1.",
        (0, 2.25): "these are the odds: turn them into a probability.",
        (1, 0.692): "that is without the division by T.",
        (1, 0.6): "the shares were divided by T, too: first divide the logits, then correct.",
        (1, 0.333): "divided, but not corrected yet.",
        (1, 4.5): "these are the odds: turn them into a probability.",
        (2, "lynx"): "T makes the teacher less sure. Does it change which logit is the largest?",
    }, within=0.005), kind="predict"),
    _row("worst_class", "21_labels", 2, "measuring", "Accuracy of the worst class",
         experiments.worst_class),
    _row("who_mends", "21_labels", 2, "soft targets", "Who can mend it?", choice(
        "who_mends", ("balanced labels", "named class", 0, "the unlabelled"), {
            (0, "its answers"): "this network learned the same tail: what does it know that your labels lack?",
            (1, "soft answers"): "in all, the soft answers hold as many wrong labels as before.",
            (2, 10): "which of the three words has the most votes?",
            (2, 3): "the teacher can't tell the ten apart, so it names one class for all of them.",
            (2, 4): "so many are labelled coat; how many of the ten are coats?",
            (3, "the labelled"): "does the teacher need a label to answer?",
        }), kind="choose"),
    _row("what_to_store", "22_keep", 2, "language", "What do you store?",
         choice("what_to_store", ("features", "rest", "draws"), {
             (0, "rest"): "right sums, but the order within the rest is lost; here nothing need be lost.",
             (0, "draws"): "right on average, with noise; here nothing need be lost, for little more.",
             (0, "renormalised"): "then the student is never told how much the kept tokens have together.",
             (1, "features"): "the service does not hand out what stands before its last layer.",
             (1, "draws"): "a list of the likeliest tokens is no draw from all of them.",
             (1, "renormalised"): "then the student is never told how much the twenty have together.",
             (2, "features"): "they are of no use without the last layer, which the students' machines cannot hold.",
             (2, "rest"): "all texts leave out the same rare tokens: their error falls far less than that of draws.",
             (2, "renormalised"): "then the student is never told how much the kept tokens have together.",
         }), kind="choose"),
    _row("form_to_keep", "22_keep", 2, "tools", "In which form do you keep it?", choice(
        "form_to_keep", ("features", "draws", "logits"), {
            (0, "logits"): "2 · 50,000 bytes for each of 100 million tokens are 10 TB.",
            (0, "largest"): "the probabilities of k tokens belong to one temperature, and several are to be tried.",
            (0, "draws"): "draws are made at one temperature, and several are to be tried.",
            (1, "logits"): "2 · 128,000 bytes for each of 10 thousand million tokens are 2,560 TB.",
            (1, "features"): "2 · 4,096 bytes for each of 10 thousand million tokens are 82 TB.",
            (1, "largest"): "50 · (2 + 4) bytes for each of 10 thousand million tokens are 3 TB; how long is a draw?",
            (2, "features"): "512 features are more numbers than ten logits.",
            (2, "largest"): "ten logits are 20 bytes: what is there to be saved?",
            (2, "draws"): "draws are made at one temperature, and ten logits are only 20 bytes.",
        }), kind="choose"),
    _row("spend_bytes", "22_keep", 2, "size", "Spend 120 bytes", choice(
        "spend_bytes", (60, 30, 150, "largest", "draws"), {
            (0, 30): "a draw has no probability beside it: it is two bytes, the place alone.",
            (0, 120): "a place takes two bytes in a vocabulary of 50,000 tokens.",
            (1, 60): "one of the largest takes its place and its probability, four bytes.",
            (1, 20): "a place takes two bytes, not four, in a vocabulary of 50,000 tokens.",
            (2, 12.3): "the error falls with the root of the number of tokens: square it.",
            (2, 9025): "that is for a single draw; sixty are off by less at each token.",
            (3, "draws"): "twenty tokens are fewer than those at which the two are level.",
            (4, "largest"): "in a mean of 4,000 tokens draws are off by 12.3 / √4,000 %, which is 0.2.",
        }, within=0.02), kind="choose"),
    _row("first_check", "23_on_policy", 2, "tools", "The loss that should be 0", choice(
        "first_check", ("template", "shift", "dropout"), {
            (0, "shift"): "a shift would be wrong at every token; here all but the first agree.",
            (0, "dropout"): "noise would be small and everywhere; here it is large, at one token.",
            (1, "template"): "after a few tokens of the answer a template hardly matters; here no token agrees.",
            (1, "dropout"): "five nats a token are two models that speak of different things.",
            (2, "template"): "a template shows at the first tokens; here all are a little off, and never twice alike.",
            (2, "shift"): "a shift is off by nats, and by the same nats each time.",
        }), kind="diagnose"),
    _row("answer_mask", "23_on_policy", 2, "losses", "Which places of an answer count?", several.answer_mask),
    _row("which_estimator", "23_on_policy", 2, "losses", "Which estimator do you take?", choice(
        "which_estimator", ("sum", "policy", "k1"), {
            (0, "policy"): "it is right on average and noisy; with all logits at hand nothing need be drawn.",
            (0, "k1"): "as a loss its gradient is 0 on average.",
            (0, "k3"): "as a loss it has the gradient of the other divergence.",
            (1, "sum"): "the teacher gives one number a token: there is nothing to sum over.",
            (1, "k1"): "as a loss its gradient is 0 on average: hold it still, and multiply by log q.",
            (1, "k3"): "its value is right, its gradient is that of KL(p‖q).",
            (2, "sum"): "the teacher gives one number a token: there is nothing to sum over.",
            (2, "policy"): "its value says nothing: only its gradient is meant.",
            (2, "k3"): "right on average over all draws; a sure student hardly ever makes those that count most.",
        }), kind="choose"),
    _row("draft_loop", "24_draft", 2, "tools", "Let the draft and its target write", shipping.draft_loop),
    _row("what_comes_out", "24_draft", 2, "soft targets", "What comes out?", choice(
        "what_comes_out", (0.7, 0.4), {
            (0, 0.3): "that is the share that is refused.",
            (0, 0.58): "two independent draws agree so often; the rule keeps more: the smaller of p and q of each token.",
            (0, 0.4): "half of the sum of the differences is what does not overlap; you took the whole.",
            (1, 0.1): "the draft proposes it so often; but what is put in the place of a refused token?",
            (1, 0.3): "that is what a refused first token adds; the draft proposes the second one as well.",
            (1, 0.25): "between the two is not where it ends: count both ways in which the second token comes out.",
        }, within=0.01), kind="predict"),
    _row("draft_pays", "24_draft", 2, "size", "Does the draft pay?", choice(
        "draft_pays", (1.65, 0.90, "no"), {
            (0, 1.92): "the four proposals cost the draft time, too: 4 · 0.05.",
            (0, 1.85): "the draft makes four proposals, not one: they cost 4 · 0.05.",
            (0, 1.55): "a round of four brings up to five tokens: the fifth term, 0.6⁴, is missing.",
            (0, 2.31): "that is what a round brings; divide it by what a round costs.",
            (1, 0.94): "the four proposals cost the draft time, too: 4 · 0.02.",
            (1, 1.11): "as many times slower; the question is how many times as fast.",
            (2, "yes"): "what does a round bring even if every proposal is kept, and what does its check cost?",
        }, within=0.01), kind="predict"),
)  # fmt: skip

# Names that answers to earlier editions have.
ALIASES = {
    "my_loss": "distillation_loss",
    "my_step": "training_step",
    "interval": "paired_interval",
}
