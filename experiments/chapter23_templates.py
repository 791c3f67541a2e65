"""Chapter 23: teacher and student are the same SmolLM2, and one of them is asked in another chat template.

python -m experiments.chapter23_templates writes chapters/results/23_templates.csv, in about a minute. The answer's tokens
are the same on both sides, so that every difference comes from what stands before them.
"""

from functools import cache

import torch

from companion.teachers import smollm2
from companion.tokens import forward_kl_loss
from experiments.common import run_all

QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Name three fruits.",
    "How do I boil an egg?",
    "What is two plus three?",
)
CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
TEMPLATES = {
    "same": CHATML,
    "no line break at the end": CHATML.removesuffix("\n"),
    "with a system message": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n" + CHATML,
    "instruction and response": "### Instruction:\n{}\n\n### Response:\n",
    "no template": "{}\n",
}
ANSWER = 16  # tokens
MODEL = smollm2()


def ids(text: str) -> torch.Tensor:
    return torch.tensor([MODEL.tokenizer.encode(text).ids])


@cache
@torch.no_grad()
def answer(question: str) -> torch.Tensor:
    """The model's greedy answer, (1, up to ANSWER)."""
    prompt, past, said = ids(CHATML.format(question)), [], []
    logits = MODEL(prompt, cache=past)
    while len(said) < ANSWER and (not said or said[-1] != MODEL.end):
        said.append(int(logits[0, -1].argmax()))
        logits = MODEL(torch.tensor([said[-1:]]), cache=past)
    return torch.tensor([said])


@torch.no_grad()
def logits_of(template: str, question: str, said: torch.Tensor) -> torch.Tensor:
    """The logits that predict the answer's tokens, (1, n, V), after the question in a template."""
    prompt = ids(template.format(question))
    return MODEL(torch.cat([prompt, said], 1))[:, prompt.shape[1] - 1 : -1]


def one(template: str):
    kl, agree = [], []
    for question in QUESTIONS:
        said = answer(question)
        v, z = logits_of(CHATML, question, said), logits_of(TEMPLATES[template], question, said)
        kl.append(forward_kl_loss(z, v).item())
        agree.append((z.argmax(-1) == v.argmax(-1)).float().mean().item())
    return {"kl": sum(kl) / len(kl), "agree": 100 * sum(agree) / len(agree)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    about = "KL in nats a token and equal choices in percent between SmolLM2 and itself asked in another chat template"
    run_all("23_templates", about, [{"template": name} for name in TEMPLATES], one)
