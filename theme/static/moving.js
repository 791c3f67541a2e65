/* Figures that move. A page holds the run's numbers (companion.interactive); this computes with them and draws.
   Nothing is animated, nothing is loaded: a figure changes only when the reader changes a control. */
(() => {
  "use strict";
  const sum = a => a.reduce((x, y) => x + y, 0);
  const softmax = (v, T = 1) => {
    const m = Math.max(...v), e = v.map(x => Math.exp((x - m) / T)), s = sum(e);
    return e.map(x => x / s);
  };
  const entropy = p => -sum(p.map(x => (x > 0 ? x * Math.log(x) : 0)));
  const norm = a => Math.hypot(...a);
  const minus = (a, b) => a.map((x, i) => x - b[i]);
  const range = (a, b, n) => Array.from({ length: n }, (_, i) => a + ((b - a) * i) / (n - 1));
  const two = x => +(2 ** x).toFixed(2); // sliders of temperatures move by powers of 2
  const fix = (x, n = 4) => x.toFixed(n).replace("-", "−").replace(/^−([0.]+)$/, "$1");
  const scaled = (x, units, base) => { // three digits and a unit: 256 PB, 97.2 k
    const i = Math.min(Math.max(Math.floor(Math.log10(Math.max(x, 1)) / base + 1e-9), 0), units.length - 1);
    return [+(x / 10 ** (base * i)).toPrecision(3), units[i]].filter(part => part !== "").join(" ");
  };
  const size = x => scaled(x, ["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3);
  const raised = n => `${n}`.replace(/\d/g, d => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
  const short = x => {
    if (x < 1e6) return x < 100 ? `${+x.toPrecision(3)}` : Math.round(x).toLocaleString("en");
    if (x < 1e12) return scaled(x / 1e6, ["million", "billion"], 3);
    const e = Math.floor(Math.log10(x));
    return `${(x / 10 ** e).toFixed(2)} × 10${raised(e)}`;
  };
  const amount = text => { // what a reader types: 70B, 1T, 128k, 128,000, 3e12; a comma is for thousands, 0,4 is refused
    const found = /^\s*((?:[1-9]\d{0,2}(?:[, ]\d{3})+|\d+)(?:\.\d*)?(?:e\+?\d+)?|\.\d+)\s*([kKMBGT]?)\s*$/.exec(text);
    return found ? Number(found[1].replace(/[, ]/g, "")) * ({ k: 1e3, K: 1e3, M: 1e6, B: 1e9, G: 1e9, T: 1e12 }[found[2]] || 1) : NaN;
  };
  const written = x => (x >= 1e15 ? x.toExponential().replace("e+", "e") : [["T", 1e12], ["B", 1e9], ["M", 1e6]].reduce((said, [unit, n]) => said || (x >= n ? `${+(x / n).toPrecision(6)}${unit}` : ""), "") || `${x}`);

  const make = (name, attributes = {}, ...children) => {
    const svg = /^(svg|path|rect|circle|line|text)$/.test(name);
    const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    e.append(...children);
    return e;
  };

  // A pair of axes: {min, max, ticks, label, log}; with X and Y from numbers to places.
  const plot = (label, x, y, h = 230) => {
    const svg = make("svg", { viewBox: `0 0 320 ${h}`, role: "img", "aria-label": label });
    const scale = (a, lo, hi) => v => {
      const f = a.log ? Math.log : t => t;
      return lo + ((hi - lo) * (f(Math.min(Math.max(v, a.min), a.max)) - f(a.min))) / (f(a.max) - f(a.min));
    };
    const X = scale(x, 46, 312), Y = scale(y, h - 40, 18);
    const add = (name, a, ...c) => svg.appendChild(make(name, a, ...c));
    const text = (s, x, y, anchor = "middle") => add("text", { x, y, "text-anchor": anchor }, s);
    add("path", { class: "axis", d: `M46 18V${h - 40}H312`, "stroke-width": 1 });
    const named = (a, i) => (a.names ? a.names[i] : `${a.ticks[i]}`.replace("-", "−"));
    x.ticks.forEach((t, i) => text(named(x, i), X(t), h - 24));
    y.ticks.forEach((t, i) => text(named(y, i), 41, Y(t) + 4, "end"));
    text(x.label, 179, h - 6);
    text(y.label, 2, 10, "start");
    const line = (xs, ys, c) => add("path", { class: c, style: "fill:none", d: "M" + xs.map((v, i) => `${X(v).toFixed(1)} ${Y(ys[i]).toFixed(1)}`).join("L") });
    const dot = (a, b, c, r = 5) => add("circle", { class: c, cx: X(a), cy: Y(b), r });
    return { svg, add, text, X, Y, line, dot };
  };

  // Horizontal bars of probabilities, one group a class, one bar a series {values, c}; or up to another most.
  // Ghosts: a stroke across each group, where its bars end in another setting.
  const bars = (label, classes, series, target, axis, most = 1, names = ["0", "0.5", "1"], ghosts = []) => {
    const left = Math.min(Math.max(90, 8 + 6.2 * Math.max(...classes.map(name => name.length))), 160), wide = 312 - left;
    const thick = Math.min(16, Math.max(8, 160 / (classes.length * series.length))); // few bars fill their box, too
    const step = 10 + thick * series.length, h = 30 + step * classes.length + (axis ? 14 : 0), foot = axis ? 40 : 26;
    const svg = make("svg", { viewBox: `0 0 320 ${h}`, role: "img", "aria-label": label });
    const add = (name, a, ...c) => svg.appendChild(make(name, a, ...c));
    classes.forEach((name, i) => {
      const top = 4 + i * step;
      add("text", { x: left - 6, y: top + (step - 10) / 2 + 4, "text-anchor": "end", "font-weight": i === target ? "bold" : "normal" }, name);
      series.forEach(({ values, c }, k) => add("rect", { class: c, x: left, y: top + thick * k, width: Math.max((wide * values[i]) / most, .5), height: thick - 1, "stroke-width": .7 }));
      if (i in ghosts) add("line", { class: "ghost", x1: left + (wide * ghosts[i]) / most, x2: left + (wide * ghosts[i]) / most, y1: top - 2, y2: top + 1 + thick * series.length, "stroke-width": 1.6 });
    });
    add("path", { class: "axis", d: `M${left} 0V${h - foot}H312`, "stroke-width": 1 });
    names.forEach((name, i) => add("text", { x: left + (wide * i) / 2, y: h - foot + 16, "text-anchor": "middle" }, name));
    if (axis) add("text", { x: left + wide / 2, y: h - 5, "text-anchor": "middle" }, axis);
    return svg;
  };

  const table = (heads, rows) => {
    const cells = (row, first) => row.map((c, i) => make(first || !i ? "th" : "td", { scope: first ? "col" : "row" }, c));
    return make("table", {}, make("thead", {}, make("tr", {}, ...cells(heads, true))),
      make("tbody", {}, ...rows.map(r => make("tr", {}, ...cells(r, false)))));
  };

  const temperatureSlider = (value, name = "T", max = 32, min = .5) =>
    ({ key: "T", label: `${name} =`, name: `Temperature ${name}`, min: Math.log2(min), max: Math.log2(max), step: .25, value: Math.log2(value), read: two, write: Math.log2, digits: 2,
      ticks: [.5, 1, 2, 4, 8, 16, 32].filter(t => min <= t && t <= max) });

  /* Each kind: controls(data), key(data): the legend, and draw(data, state) → {plots, say, heads, rows}; it may have
     how: what to do, in a sentence or two, more: what is in the fields that are folded; say may be a table, {heads, rows};
     and draw may return note: what is seen now, goal: {text, reached}, and
     drag: [{svg, at(x, y) → state}], plots in which the reader may pull a dot about. */
  const kinds = {
    temperature: {
      how: "Set T. The bars are the probabilities at this T; the dots show how hard the teacher pulls at the student's logits, with the factor T² and without it.",
      controls: d => [temperatureSlider(d.T), ...[1, 4, 32].map(T => ({ label: `T = ${T}`, set: { T } }))],
      key: () => [["t", "teacher p"], ["b", "student q"], ["s", "pull with T²", "line"], ["a dash", "without T²", "line"]],
      draw(d, { T }) {
        const at = T => {
          const p = softmax(d.teacher, T), q = softmax(d.student, T), size = norm(minus(q, p));
          return { p, q, H: entropy(p), bare: size / T, scaled: size * T };
        };
        const now = at(T), one = d.classes.map((_, i) => +(i === d.label));
        const hard = norm(minus(softmax(d.student), one)), Ts = range(-1, 5, 49).map(x => 2 ** x), all = Ts.map(at);
        const g = plot("Size of the gradient against T, with and without T squared, and that of the label", { min: .5, max: 32, ticks: [.5, 1, 2, 4, 8, 16, 32], label: "T", log: 1 },
          { min: .0001, max: 10, ticks: [.0001, .001, .01, .1, 1, 10], label: "size of the gradient", log: 1 }, 250);
        g.line([.5, 32], [hard, hard], "b dash");
        g.text("label", 308, g.Y(hard) - 5, "end");
        g.line(Ts, all.map(o => o.scaled), "s");
        g.line(Ts, all.map(o => o.bare), "a dash");
        g.dot(T, now.scaled, "s");
        g.dot(T, now.bare, "a");
        const picture = d.image ? [make("img", { class: "moving-picture", src: d.image, alt: `A grey picture: ${d.classes[d.label]}` })] : [];
        const least = at(1).bare / 100;
        return {
          plots: [...picture, bars("Bars: the teacher's and the student's probabilities at this T", d.classes, [{ values: now.p, c: "t" }, { values: now.q, c: "b" }], d.label, "probability"), g.svg],
          say: [["entropy of p", "entropy", now.H], ["pull with T²", "scaled", now.scaled], ["without", "bare", now.bare], ["the label's", "hard", hard]],
          note: T < 1 ? "Below T = 1 the teacher's answer is nearly a label." : T < 2 ? "Near T = 1 both dots are one: T² is 1." : T < 8 ? "The other classes can be heard, and without T² the pull is already much weaker." : "p and q have come near to each other, both nearly even. Without T² hardly any pull is left.",
          goal: { text: "Find a T at which the pull without T² is about a hundredth of what it is at T = 1.", reached: now.bare > .7 * least && now.bare < 1.4 * least },
          heads: ["class", "p", "q"], rows: d.classes.map((c, i) => [c, fix(now.p[i]), fix(now.q[i])]),
        };
      },
    },

    "soft-target": {
      how: "Pick an image, and turn T. The bold class is the label.",
      controls: d => [
        { key: "image", label: "Image", images: d.images, names: d.labels.map((y, i) => `${d.classes[y]}, image ${i + 1}`) },
        temperatureSlider(d.T), ...[1, 4, 32].map(T => ({ label: `T = ${T}`, set: { T } })),
        { key: "without", label: "leave the label's class out: r", check: true },
      ],
      key: () => [["t", "teacher"]],
      draw(d, { T, image, without }) {
        const y = d.labels[image], v = d.teacher[image], names = d.classes.filter((_, c) => !(without && c === y));
        const p = softmax(v.filter((_, c) => !(without && c === y)), T), third = [...p].sort((a, b) => b - a)[2];
        const lower = softmax(v, T / 2 ** .25).sort((a, b) => b - a)[2]; // one step of the slider down
        return {
          plots: [bars(`Bars: the teacher's ${without ? "shares of the wrong classes" : "probabilities"} at this T`, names, [{ values: p, c: "t" }], without ? -1 : y, without ? "share among the other nine, r" : "probability")],
          say: [[`the teacher's p of “${d.classes[y]}”`, "sure", softmax(v, T)[y]], ["third longest bar", "third", third]],
          note: without ? "The label's class is out, and with it how sure the teacher is: r says what else it could be."
            : T < .75 ? "Low T: the largest score leaves the others behind, and the answer is nearly a label."
              : T < 1.5 ? "Near T = 1, the ordinary softmax, most bars can hardly be seen."
                : T < 12 ? "The short bars have grown, and the longest has shrunk; the order is the same." : "High T: all bars come near to equal. The order is still the same.",
          goal: { text: "Leave the box empty and find the least T at which three classes have a tenth each.", reached: !without && third >= .1 && lower < .1 },
          heads: ["class", without ? "r" : "p"], rows: names.map((c, i) => [c, fix(p[i])]),
        };
      },
    },

    "dark-knowledge": {
      how: "Pick an image and a temperature. The bold class is the label.",
      controls: d => [
        { key: "image", label: "Image", images: d.images, names: d.labels.map(y => d.classes[y]) },
        temperatureSlider(d.T), ...[.5, 4, 32].map(T => ({ label: `T = ${T}`, set: { T } })),
        { key: "without", label: "leave the label's class out: r", check: true },
      ],
      key: () => [["t", "teacher"], ["b", "student before"], ["s", "student after"]],
      draw(d, { T, image, without }) {
        const y = d.labels[image], names = d.classes.filter((_, c) => !(without && c === y));
        const [p, before, after] = [d.teacher, d.before, d.after].map(v => softmax(v[image].filter((_, c) => !(without && c === y)), T));
        const apart = q => sum(p.map((x, c) => x * Math.log(x / q[c]))), first = q => q.indexOf(Math.max(...q)), target = without ? -1 : y;
        const sure = softmax(d.teacher[image], T)[y], notes = [
          [.75, `Low T: the teacher's answer is nearly a label. ${first(p) === first(after)
            ? `The student after training is ${Math.max(...after) > Math.max(...p) ? "even surer" : "less sure"}: its longest bar is ${fix(Math.max(...after))}, the teacher's ${fix(Math.max(...p))}.`
            : `The student after training has another longest bar, and only ${fix(after[first(p)])} on the teacher's class; that makes KL large.`}`],
          [6, "In between: the other classes can be seen, and they differ from image to image."], [99, "High T: all bars come near to equal, whatever the image. Softer is not more knowing."]];
        return {
          plots: [bars(`Bars: ${without ? "shares of the wrong classes" : "probabilities"} by teacher, student before and student after`, names,
            [{ values: p, c: "t" }, { values: before, c: "b" }, { values: after, c: "s" }], target, without ? "share among the other nine, r" : "probability")],
          say: [[`teacher's p of “${d.classes[y]}”`, "sure", sure], ["entropy of the blue bars, in nats", "entropy", entropy(p)],
            ["KL(teacher‖student) before, in nats", "before", apart(before)], ["after", "after", apart(after)]],
          note: notes.find(([most]) => T < most)[1],
          goal: { text: "Find an image for which teacher and trained student have different longest bars.", reached: !without && first(p) !== first(after) },
          heads: ["class", "teacher", "before", "after"], rows: names.map((c, i) => [c, fix(p[i]), fix(before[i]), fix(after[i])]),
        };
      },
    },

    "three-classes": {
      how: "Blue is the teacher, whose logits stay. Orange is the student: change its logits z₁ and z₂ (z₃ stays 0), and the temperature of both.",
      controls: d => [
        ...[0, 1].map(i => ({ key: `z${i}`, label: `z${"₁₂"[i]} =`, name: `Student's logit z${"₁₂"[i]}`, min: -2, max: 4, step: .05, value: d.student[i], digits: 2, ticks: [-2, -1, 0, 1, 2, 3, 4] })),
        { ...temperatureSlider(1, "T", 16) }, { label: "student = teacher", set: { z0: d.teacher[0] - d.teacher[2], z1: d.teacher[1] - d.teacher[2] } },
        { label: "T = 1", set: { T: 1 } }, { label: "T = 8", set: { T: 8 } },
      ],
      key: () => [["t", "teacher p"], ["s", "student q"]],
      draw(d, { z0, z1, T }) {
        const p = softmax(d.teacher, T), q = softmax([z0, z1, 0], T), H = entropy(p);
        const CE = -sum(p.map((x, c) => x * Math.log(q[c]))), KL = CE - H;
        const most = 3, X = v => 20 + 285 * Math.min(v, most) / most; // one bar of two parts: CE = H + KL
        const svg = make("svg", { viewBox: "0 0 320 92", role: "img", "aria-label": "One bar: the cross-entropy, of which the entropy of p is the first part and KL the rest" });
        const add = (name, a, ...c) => svg.appendChild(make(name, a, ...c));
        add("text", { x: 20, y: 12 }, `cross-entropy = entropy of p + KL${CE > most ? " (the bar ends at 3)" : ""}`);
        add("rect", { class: "t", x: 20, y: 22, width: X(H) - 20, height: 22 });
        add("rect", { class: "s", x: X(H), y: 22, width: Math.max(X(CE) - X(H), .5), height: 22 });
        add("path", { class: "axis", d: "M20 56H305", "stroke-width": 1 });
        for (const t of [0, 1, 2, 3]) add("text", { x: X(t), y: 72, "text-anchor": "middle" }, `${t}`);
        add("text", { x: 162, y: 88, "text-anchor": "middle" }, "nats");
        return {
          plots: [bars("Bars: probabilities of teacher and student for three classes", d.classes, [{ values: p, c: "t" }, { values: q, c: "s" }], -1, "probability"), svg],
          say: [["H(p)", "entropy", H], ["CE(p, q)", "ce", CE], ["KL(p‖q)", "kl", KL]],
          note: KL < 5e-4 ? "They agree: KL is 0, and the cross-entropy has stopped at the entropy of p." : T > 6 ? "At a high T both are nearly even, so KL is small although the logits are as far apart as before." : "",
          goal: { text: "At T = 1, bring KL below 0.001 with z₁ and z₂ alone. Where does the cross-entropy stop?", reached: T === 1 && KL < 1e-3 },
          heads: ["class", "p", "q"], rows: d.classes.map((c, i) => [c, fix(p[i]), fix(q[i])]),
        };
      },
    },

    "two-humps": {
      how: "Move the orange student by the sliders, by the buttons, or by pulling the dot in a map. Each map is darkest where its divergence is least.",
      controls: d => [
        { key: "mu", label: "μ =", name: "Mean μ of the student", min: -5, max: 5, step: .1, value: d.minima[0].mu, digits: 2, ticks: [-4, -2, 0, 2, 4] },
        { key: "sigma", label: "σ =", name: "Standard deviation σ of the student", min: .5, max: 5, step: .1, value: d.minima[0].sigma, digits: 2, ticks: [1, 2, 3, 4, 5] },
        ...d.minima.map(m => ({ label: m.name === "forward" ? "least forward KL" : `${m.name} hump`, set: { mu: m.mu, sigma: m.sigma } })),
      ],
      key: () => [["t", "teacher p"], ["s", "student q"]],
      draw(d, { mu, sigma }) {
        const logNormal = (x, m, s) => -.5 * ((x - m) / s) ** 2 - Math.log(s * Math.sqrt(2 * Math.PI));
        const logP = x => {
          const l = d.weights.map((w, k) => Math.log(w) + logNormal(x, d.means[k], d.deviations[k])), m = Math.max(...l);
          return m + Math.log(sum(l.map(a => Math.exp(a - m))));
        };
        const both = (mu, sigma, xs, step) => { // the two integrals, on a grid
          let forward = 0, back = 0;
          for (const [x, p] of xs) {
            const q = logNormal(x, mu, sigma);
            forward += Math.exp(p) * (p - q) * step;
            back += Math.exp(q) * (q - p) * step;
          }
          return [forward, back];
        };
        const grid = (n, step) => Array.from({ length: 2 * n + 1 }, (_, i) => [(i - n) * step, logP((i - n) * step)]);
        d.fine = d.fine || grid(2000, .02);
        const [forward, back] = both(mu, sigma, d.fine, .02);
        const xs = range(-8, 8, 321), g = plot("Densities of the teacher, with two humps, and of the student, one Gaussian",
          { min: -8, max: 8, ticks: [-6, -3, 0, 3, 6], label: "x" }, { min: 0, max: .8, ticks: [0, .2, .4, .6, .8], label: "density" }, 200);
        g.line(xs, xs.map(x => Math.exp(logP(x))), "t");
        g.line(xs, xs.map(x => Math.exp(logNormal(x, mu, sigma))), "s dash");
        d.cells = d.cells || (coarse => range(-4.875, 4.875, 40).flatMap(m => range(.625, 4.875, 18).map(s => [m, s, both(m, s, coarse, .2)])))(grid(100, .2));
        const maps = ["forward", "reverse"].map((name, place) => {
          const minima = d.minima.filter(m => (m.name === "forward") === (name === "forward")), least = Math.min(...d.cells.map(c => c[2][place]));
          const map = plot(`Map of the ${name} KL over mean and standard deviation, with ${minima.length > 1 ? "its minima" : "its minimum"}`,
            { min: -5, max: 5, ticks: [-4, -2, 0, 2, 4], label: "μ" }, { min: .5, max: 5, ticks: [1, 2, 3, 4, 5], label: "σ" }, 220);
          map.text(`${name} KL`, 179, 10).setAttribute("font-weight", "bold");
          const w = map.X(.25) - map.X(0), h = map.Y(1) - map.Y(1.25);
          for (const [m, s, kl] of d.cells) {
            const shade = Math.max(.6 - .075 * Math.ceil((kl[place] - least) / .25), 0); // one step of grey for each ¼ nat
            if (shade) map.add("rect", { class: "level", x: map.X(m) - w / 2, y: map.Y(s) - h / 2, width: w, height: h, "fill-opacity": shade });
          }
          for (const m of minima) {
            map.dot(m.mu, m.sigma, "t", 6).setAttribute("style", "fill:none;stroke-width:2");
            map.text(m.name.replace("reverse, ", ""), map.X(m.mu), map.Y(m.sigma) + (m.sigma > 2 ? 19 : -10)); // below, where the student may stand above
          }
          map.dot(mu, sigma, "s", 5);
          return map;
        });
        const between = (x, a, b) => Math.min(Math.max(x, a), b), tenth = x => Math.round(10 * x) / 10;
        const note = Math.abs(mu) < 1.6 && sigma < 1.6 ? "In the valley the teacher says nearly nothing: the reverse KL is large." : sigma < 1.3 && Math.abs(mu) > 2.2 ? "On one hump: the reverse KL is small. The other hump is not covered, and the forward KL is large."
          : Math.abs(mu + .6) < .4 && Math.abs(sigma - 3.05) < .3 ? "Wide enough to cover both humps: here the forward KL is least, and the student's top stands in the valley." : "";
        return {
          plots: [g.svg, ...maps.map(map => map.svg)], note,
          drag: maps.map(map => ({ svg: map.svg, at: (x, y) => ({ mu: between(tenth(-5 + 10 * (x - map.X(-5)) / (map.X(5) - map.X(-5))), -5, 5), sigma: between(tenth(.5 + 4.5 * (y - map.Y(.5)) / (map.Y(5) - map.Y(.5))), .5, 5) }) })),
          say: [["forward KL(p‖q)", "forward", forward], ["reverse KL(q‖p)", "reverse", back]],
          goal: { text: "Start on the left hump and walk the student across the valley, by μ alone, until the reverse KL is below 1 again.", reached: mu > 0 && back < 1 },
          heads: ["least", "μ", "σ", "KL"], rows: d.minima.map(m => [m.name, fix(m.mu), fix(m.sigma), fix(m.value)]),
        };
      },
    },

    "cover-or-seek": {
      how: "Turn β from 0, the forward KL, to 1, the reverse KL. Watch which valley is the deepest.",
      controls: d => [
        { key: "beta", label: "β =", name: "Weight β of the teacher in the mixture", min: 0, max: 1, step: .05, value: d.beta, digits: 2, ticks: [0, .25, .5, .75, 1] },
      ],
      key: () => [["t", "teacher p"], ["s", "nearest q"]],
      draw(d, { beta }) {
        const logNormal = (x, m, s) => -.5 * ((x - m) / s) ** 2 - Math.log(s * Math.sqrt(2 * Math.PI)), step = .1;
        const logP = x => {
          const l = d.weights.map((w, k) => Math.log(w) + logNormal(x, d.means[k], d.deviations[k])), m = Math.max(...l);
          return m + Math.log(sum(l.map(a => Math.exp(a - m))));
        };
        d.fine = d.fine || range(-16, 16, 321).map(x => [x, logP(x)]);
        const divergence = (mu, sigma) => sum(d.fine.map(([x, p]) => {
          const q = logNormal(x, mu, sigma), P = Math.exp(p), Q = Math.exp(q);
          if (beta === 0) return P * (p - q);
          if (beta === 1) return Q * (q - p);
          const m = Math.log(beta * P + (1 - beta) * Q + 1e-300);
          return beta * P * (p - m) + (1 - beta) * Q * (q - m);
        })) * step;
        d.known = d.known || {};
        const found = d.known[beta] = d.known[beta] || range(-5, 5, 41).map(mu => range(.5, 5, 46).reduce((best, sigma) => {
          const value = divergence(mu, sigma);
          return value < best.value ? { mu, sigma, value } : best;
        }, { value: Infinity }));
        const best = found.reduce((a, b) => (b.value < a.value ? b : a));
        const xs = range(-8, 8, 321), g = plot("Densities of the teacher, with two humps, and of the nearest Gaussian",
          { min: -8, max: 8, ticks: [-6, -3, 0, 3, 6], label: "x" }, { min: 0, max: .6, ticks: [0, .2, .4, .6], label: "density" }, 200);
        g.line(xs, xs.map(x => Math.exp(logP(x))), "t");
        g.line(xs, xs.map(x => Math.exp(logNormal(x, best.mu, best.sigma))), "s dash");
        const low = plot("The divergence, over its least value, against the mean of the student", { min: -5, max: 5, ticks: [-4, -2, 0, 2, 4], label: "μ, each with its best σ" },
          { min: 1, max: 4, ticks: [1, 2, 3, 4], label: "divergence ÷ its least" }, 200);
        low.line(found.map(f => f.mu), found.map(f => f.value / best.value), "s");
        low.dot(best.mu, 1, "s", 5);
        return {
          plots: [g.svg, low.svg],
          say: [["μ", "mu", best.mu, fix(best.mu, 2)], ["σ", "sigma", best.sigma, fix(best.sigma, 1)], ["divergence", "value", best.value]], // no finer than the grid
          note: best.sigma > 2 ? "The nearest student covers both humps." : "The nearest student sits on one hump. The valley in the middle is still there, for a student that starts in it.",
          goal: { text: "Find the first β at which the student leaves the middle.", reached: best.sigma < 2 && beta < .425 },
          heads: ["β", "μ", "σ", "divergence"], rows: [[fix(beta, 2), fix(best.mu, 2), fix(best.sigma, 1), fix(best.value)]],
        };
      },
    },

    // What a distillation costs: the formulas of companion/costs.py, for numbers that the reader types.
    costs: {
      how: "Type your own numbers; 70B, 1T, 128k, 128,000, 0.4 and 3e12 are understood.",
      more: "More fields: answers on disk, logits in memory, a GPU and its price",
      controls: d => d.inputs.map(({ key, name, value, more }) => ({ key, name, value, more, number: true, refuse: (n, x) => kinds.costs.refuse(key, n, x) })),
      key: () => [["t", "teacher"], ["s", "student"]],
      refuse(key, n, x) { // what is wrong with this number, the others being x; or nothing
        if (key === "utilisation" && n > 1) return "A share is at most 1: 40 % is 0.4.";
        if (["vocabulary", "width", "k", "batch", "group", "gpus"].includes(key) && n % 1) return "This is a whole number.";
        if (key === "k" && n > x.vocabulary) return `k is at most the vocabulary, ${written(x.vocabulary)}.`;
        return key === "vocabulary" && n < x.k ? `The vocabulary is at least k, ${written(x.k)}.` : "";
      },
      draw(d, x) {
        const v = { teacher_live: 2 * x.teacher * x.tokens * x.passes, teacher_once: 2 * x.teacher * x.tokens, trained: 6 * x.student * x.tokens * x.passes };
        for (const [name, work] of [["live", v.teacher_live], ["once", v.teacher_once], ["trained", v.trained]]) v[`hours_${name}`] = work / (x.peak * x.utilisation * 3600);
        for (const name of ["live", "once"]) {
          v[`money_${name}`] = x.price * (v[`hours_${name}`] + v.hours_trained);
          v[`days_${name}`] = (v[`hours_${name}`] + v.hours_trained) / (24 * x.gpus);
        }
        v.surcharge = v.teacher_live / v.trained;
        v.disk_logits = 2 * x.vocabulary * x.tokens;
        v.disk_features = 2 * x.width * x.tokens;
        const place = x.vocabulary <= 65536 ? 2 : 4; // bytes of a token's number
        v.disk_largest = x.k * (2 + place) * x.tokens;
        v.disk_draws = x.k * place * x.tokens;
        v.memory_usual = 4 * x.vocabulary * 5 * x.batch;
        v.memory_groups = 4 * x.vocabulary * 2 * Math.min(x.group, x.batch);
        v.memory_weights = 16 * x.student + 2 * x.teacher;
        v.memory_once = Math.max(16 * x.student, 2 * x.teacher);
        const rows = (title, unit, entries, show, log) => {
          const svg = make("svg", { viewBox: `0 0 320 ${26 + 40 * entries.length}`, role: "img", "aria-label": title });
          const add = (name, a, ...c) => svg.appendChild(make(name, a, ...c)), values = entries.map(e => e[1]), most = Math.max(...values), least = Math.min(...values) / 10;
          const part = value => (log ? Math.log(value / least) / Math.log(most / least) : value / most);
          add("text", { x: 2, y: 12, "font-weight": "bold" }, `${title}, ${unit}`);
          entries.forEach(([name, value, c], i) => {
            add("text", { x: 2, y: 34 + 40 * i }, `${name}: ${show(value)}`);
            add("rect", { class: c, x: 2, y: 40 + 40 * i, width: Math.max(300 * part(value), 1), height: 12 });
          });
          return svg;
        };
        const kept = [["k draws", v.disk_draws, "t"], ["k largest", v.disk_largest, "t"], ["features", v.disk_features, "t"], ["all logits", v.disk_logits, "t"]];
        return {
          plots: [rows("Compute", "hours of one GPU", [["teacher, asked on each pass", v.hours_live, "t"], ["teacher, asked once", v.hours_once, "t"], ["student, trained", v.hours_trained, "s"]], short),
            rows("Answers on disk", "bars logarithmic", kept, size, true)],
          say: { heads: ["the teacher is asked", "on each pass", "once"], rows: [
            ["GPU hours", short(v.hours_live + v.hours_trained), short(v.hours_once + v.hours_trained)],
            ...(x.price === 1 ? [] : [["cost", short(v.money_live), short(v.money_once)]]), // else the hours twice
            [`days on ${written(x.gpus)} GPUs`, short(v.days_live), short(v.days_once)],
            ["memory at a time", size(v.memory_weights), size(v.memory_once)], [`disk, ${written(x.k)} draws`, "none", size(v.disk_draws)], [`disk, ${written(x.k)} largest`, "none", size(v.disk_largest)]] },
          note: v.days_once < v.days_live ? `If the teacher is asked once, and a disk of ${size(v.disk_draws)} keeps ${written(x.k)} draws of each answer, this takes ${short(v.days_once)} days on ${written(x.gpus)} GPUs and not ${short(v.days_live)}, and at most ${size(v.memory_once)} of memory at a time and not ${size(v.memory_weights)}.`
            : "In a single pass asking once saves no time, only the teacher's memory.",
          goal: { text: "Find the teacher that, asked once, costs as much as its student.", reached: Math.abs(v.teacher_once / v.trained - 1) < .02 },
          values: v,
          heads: ["quantity", "value"], rows: [
            ["operations, teacher asked on each pass", short(v.teacher_live)], ["operations, teacher asked once", short(v.teacher_once)], ["operations, student trained", short(v.trained)],
            ["teacher asked on each pass, over student", `${v.surcharge.toPrecision(3)}×`],
            ["GPU hours, teacher asked on each pass", short(v.hours_live)], ["GPU hours, teacher asked once", short(v.hours_once)], ["GPU hours, student trained", short(v.hours_trained)],
            ["cost, teacher asked on each pass", short(v.money_live)], ["cost, teacher asked once", short(v.money_once)],
            ["days, teacher asked on each pass", short(v.days_live)], ["days, teacher asked once", short(v.days_once)],
            ["disk, all logits", size(v.disk_logits)], ["disk, features", size(v.disk_features)], ["disk, k largest", size(v.disk_largest)], ["disk, k draws", size(v.disk_draws)],
            ["memory, teacher asked on each pass", size(v.memory_weights)], ["memory, teacher asked once: the larger of two runs", size(v.memory_once)], ["logits in memory, usual lines", size(v.memory_usual)], ["logits in memory, in groups", size(v.memory_groups)]],
        };
      },
    },
  };

  /* Frames that Python has computed (companion/frames.py): each panel's form makes its plot and its table of numbers,
     for option k of the choice (or 0) and frame i. */
  const chosen = (of, k) => of[Math.min(k, of.length - 1)]; // what no choice changes stands once
  const forms = {
    bars: (p, k, i) => {
      const series = p.series.map(s => ({ ...s, values: s.values[k][i] }));
      const moves = Array.isArray(p.target), target = moves ? p.target[i] : p.target; // of each frame, with a mark, or of all
      const names = p.classes.map((c, j) => (moves && j === target ? `▸ ${c}` : c)), ghosts = p.ghosts ? chosen(p.ghosts.values, k) : [];
      const found = [...series, ...(p.ghosts ? [{ name: p.ghosts.name, values: ghosts }] : [])];
      return { plot: bars(p.title, names, series, target, p.label, p.maximum, p.names, ghosts), table: [[p.label, ...found.map(s => s.name)], p.classes.map((c, j) => [c, ...found.map(s => `${s.values[j]}`)])] };
    },
    curves: (p, k, i) => {
      const g = plot(p.title, p.x, p.y, 210), rows = [];
      p.far = Math.max(p.far ?? 0, i); // a curve that unfolds reaches as far as the slider has been
      for (const l of p.lines) {
        const ys = l.moves ? chosen(l.ys, k)[i] : chosen(l.ys, k), dot = l.dots && chosen(l.dots, k)[i];
        g.line(p.unfolds ? l.xs.slice(0, p.far + 1) : l.xs, ys, l.c);
        if (dot) g.dot(...dot, l.c);
        const some = l.xs.map((x, j) => [x, ys[j]]).filter((_, j) => j % Math.ceil(l.xs.length / 6) === 0); // of a curve that moves
        rows.push(...(dot ? [dot] : l.moves ? some : []).map(([x, y]) => [l.name, `${x}`, `${y}`]));
      }
      return { plot: g.svg, table: rows.length ? [["curve", p.x.label, p.y.label], rows] : null };
    },
    points: (p, k, i) => {
      const g = plot(p.title, p.x, p.y, 250), [first] = p.groups, middle = (p.x.min + p.x.max) / 2;
      const places = first.at[k][i], [cx, cy] = [0, 1].map(d => sum(places.map(at => at[d])) / places.length);
      const round = (of, c) => g.line(...[0, 1].map(d => [...of, of[0]].map(at => at[d])), c);
      if (p.closed && p.ghosts) round(p.ghosts, "i dash").style.strokeWidth = 1.2;
      if (p.closed) round(places, first.c);
      (p.ghosts || []).forEach((ghost, j) => {
        const [x, y] = places[j];
        if (!p.closed) g.add("line", { class: "axis", x1: g.X(ghost[0]), y1: g.Y(ghost[1]), x2: g.X(x), y2: g.Y(y) });
        g.dot(...ghost, "ghost", 4);
      });
      for (const group of p.groups) group.at[k][i].forEach(place => g.dot(...place, group.c));
      if (p.closed) places.forEach(([x, y], j) => { // labels outside the figure that the points form
        const away = [g.X(x) - g.X(cx), g.Y(y) - g.Y(cy)], far = norm(away) || 1;
        g.text(p.labels[j], g.X(x) + (13 * away[0]) / far, g.Y(y) + (13 * away[1]) / far + 4);
      });
      else places.forEach(([x, y], j) => g.text(p.labels[j], g.X(x) + (x > middle ? -8 : 8), g.Y(y) + 4, x > middle ? "end" : "start"));
      return { plot: g.svg, table: [["point", p.x.label || "across", p.y.label || "up"], p.groups.flatMap(group => group.at[k][i].map(([x, y], j) => [`${group.name} ${p.labels[j] || j + 1}`, `${x}`, `${y}`]))] };
    },
    images: (p, k, i, value) => ({ plot: make("img", { class: "moving-frame dark-light", src: p.sources[p.places[k][i]], alt: p.alt.replaceAll("{value}", value) }) }),
    table: (p, k, i) => ({ plot: table(p.heads, p.rows[k][i]) }),
  };
  kinds.frames = {
    controls: d => {
      const last = d.slider.values.length - 1, { label, values, start, ticks } = d.slider;
      return [{ key: "frame", label: `${label}:`, name: label, min: 0, max: last, step: 1, value: start, show: i => values[i], ticks },
        ...(d.choice ? [{ key: "option", ...d.choice }] : [])];
    },
    key: d => {
      const all = d.panels.flatMap(p => {
        const found = p.series || p.lines || p.groups || [], said = ({ name }) => p.title.toLowerCase().includes(name.toLowerCase());
        const ghosts = p.ghosts?.name ? [["i", p.ghosts.name, "line"]] : [];
        return [...(found.length === 1 && said(found[0]) ? [] : found.map(s => [s.c, s.name, { curves: "line", points: "dot" }[p.form]])), ...ghosts];
      });
      return all.filter(([c, name], i) => all.findIndex(other => other[0] === c && other[1] === name) === i);
    },
    draw: (d, { frame, option = 0 }) => {
      const drawn = d.panels.map(p => forms[p.form](p, option, frame, d.slider.values[frame]));
      return {
        plots: drawn.map(({ plot }, i) => make("div", { class: "moving-panel" }, make("p", {}, d.panels[i].title), plot)),
        say: d.say.map((s, i) => [s.name, `say-${i}`, 0, fix(s.values[option][frame], s.digits) + (s.unit && ` ${s.unit}`)]),
        note: d.notes ? d.notes[option][frame] : "",
        goal: d.goal && { text: d.goal.text, reached: d.goal.reached[option][frame] },
        tables: drawn.map(({ table }) => table).filter(Boolean),
      };
    },
  };

  const mount = (figure, index) => {
    const { kind, data } = JSON.parse(figure.querySelector("script").textContent), { controls, key, draw } = kinds[kind], how = data.how || kinds[kind].how;
    const state = {}, shown = [], takes = [], panel = make("div", { class: "moving-controls" });
    const plots = make("div", { class: "moving-plots" }), say = make("div", { role: "status", class: "moving-say" }), note = make("p", { class: "moving-note" }), goal = make("p", { class: "moving-goal" }), numbers = make("details", { class: "moving-numbers" }, make("summary", {}, "The numbers"));
    const rest = make("div", { class: "moving-controls" }), more = make("details", { class: "moving-more" }, make("summary", {}, kinds[kind].more || ""), rest);
    let drags = [], pulling = -1; // which of them is pulled
    const pull = e => {
      const drag = drags[pulling], box = drag.svg.getBoundingClientRect(), scale = 320 / box.width;
      Object.assign(state, drag.at((e.clientX - box.left) * scale, (e.clientY - box.top) * scale));
      redraw();
    };
    plots.addEventListener("pointerdown", e => {
      pulling = drags.findIndex(drag => drag.svg.contains(e.target));
      if (pulling < 0) return;
      plots.setPointerCapture(e.pointerId);
      pull(e);
    });
    plots.addEventListener("pointermove", e => { if (pulling >= 0) pull(e); });
    for (const end of ["pointerup", "pointercancel"]) plots.addEventListener(end, () => { pulling = -1; });
    const redraw = () => {
      shown.forEach(f => f());
      const now = draw(data, state);
      plots.replaceChildren(...now.plots);
      drags = now.drag || [];
      for (const drag of drags) drag.svg.classList.add("moving-drag");
      if (now.values) figure.dataset.values = JSON.stringify(now.values);
      if (now.say.heads) say.replaceChildren(table(now.say.heads, now.say.rows));
      else say.replaceChildren(...now.say.flatMap(([label, name, value, text], i) => [`${i ? "; " : ""}${label} `, make("b", { "data-name": name }, text ?? fix(value))]), now.say.length ? "." : "");
      note.textContent = now.note || "";
      if (now.goal) goal.replaceChildren(make("b", {}, `${now.goal.reached ? "✓" : "○"} Goal: `), now.goal.text);
      goal.classList.toggle("reached", Boolean(now.goal && now.goal.reached));
      const tables = (now.tables || [[now.heads, now.rows]]).filter(t => t[1].length);
      numbers.replaceChildren(numbers.firstChild, ...tables.map(t => table(...t)));
      numbers.hidden = !tables.length;  // where a panel is itself a table
    };
    for (const c of controls(data)) {
      if (c.images) {
        state[c.key] = 0;
        panel.append(make("fieldset", {}, make("legend", {}, c.label), ...c.images.map((src, i) => {
          const input = make("input", { type: "radio", name: `moving-${index}`, ...(i ? {} : { checked: "" }) });
          input.addEventListener("change", () => { state[c.key] = i; redraw(); });
          return make("label", {}, input, make("img", { src, alt: c.names[i] }));
        })));
      } else if (c.options) {
        state[c.key] = 0;
        panel.append(make("fieldset", { class: "moving-options" }, make("legend", {}, `${c.label}:`), ...c.options.map((name, i) => {
          const input = make("input", { type: "radio", name: `moving-${index}-${c.key}`, ...(i ? {} : { checked: "" }) });
          input.addEventListener("change", () => { state[c.key] = i; redraw(); });
          return make("label", {}, input, make("span", {}, name));
        })));
      } else if (c.check) {
        const input = make("input", { type: "checkbox", "data-key": c.key });
        state[c.key] = false;
        input.addEventListener("change", () => { state[c.key] = input.checked; redraw(); });
        panel.append(make("label", { class: "moving-check" }, input, ` ${c.label}`));
      } else if (c.number) {
        const wrong = make("span", { class: "moving-wrong", id: `moving-${index}-${c.key}`, "aria-live": "polite" });
        const input = make("input", { type: "text", autocomplete: "off", spellcheck: "false", value: written(c.value), "data-key": c.key, "aria-describedby": wrong.id });
        state[c.key] = c.value;
        const take = () => { // a number that is refused is not computed with
          const value = amount(input.value), good = value > 0 && value < 1e30;
          const said = good ? c.refuse(value, state) : /\d,\d/.test(input.value) ? "A comma stands before three digits, as in 128,000; write 0.4 with a point." : "This is to be a number above 0, such as 70B, 128k or 0.4.";
          input.setAttribute("aria-invalid", `${Boolean(said)}`);
          if (!said) state[c.key] = value;
          wrong.textContent = said && `${said} The results still use ${written(state[c.key])}.`;
        };
        takes.push([input, take]);
        input.addEventListener("input", () => {
          take();
          for (const [other, again] of takes) if (other !== input && other.getAttribute("aria-invalid") === "true") again(); // it may go with this one
          redraw();
        });
        (c.more ? rest : panel).append(make("div", { class: "moving-field" }, make("label", { class: "moving-number" }, c.name, input), wrong));
      } else if (c.set) {
        const button = make("button", { type: "button" }, c.label);
        button.addEventListener("click", () => { Object.assign(state, c.set); redraw(); });
        panel.append(button);
      } else {
        const read = c.read || (x => x), input = make("input", { type: "range", min: c.min, max: c.max, step: c.step, value: c.value, "data-key": c.key });
        const value = make("b", { "aria-hidden": "true" }); // the control says it itself
        state[c.key] = read(c.value);
        shown.push(() => {
          if (Math.abs(read(+input.value) - state[c.key]) > 1e-9 && (c.write || !c.read)) input.value = (c.write || read)(state[c.key]); // set by a button
          value.textContent = c.show ? c.show(state[c.key]) : fix(state[c.key], c.digits);
          input.setAttribute("aria-valuetext", `${c.label} ${value.textContent}`);
        });
        input.addEventListener("input", () => { state[c.key] = read(+input.value); redraw(); });
        const places = (c.ticks || []).map(t => make("span", { style: `left:${(100 * ((c.write || read)(t) - c.min)) / (c.max - c.min)}%` }, c.show ? c.show(t) : `${t}`.replace("-", "−")));
        panel.append(make("label", {}, `${c.name}: `, value, input, ...(places.length ? [make("span", { class: "moving-ticks", "aria-hidden": "true" }, ...places)] : [])));
      }
    }
    const sample = (c, form) => ({ // a piece of what is drawn: a line, a dot, or a bar
      line: () => make("svg", { viewBox: "0 0 28 12", width: 28, height: 12, "aria-hidden": "true" }, make("path", { class: c, d: "M1 6H27" })),
      dot: () => make("svg", { viewBox: "0 0 14 12", width: 14, height: 12, "aria-hidden": "true" }, make("circle", { class: c, cx: 7, cy: 6, r: 5 })),
    }[form] || (() => make("svg", { viewBox: "0 0 14 12", width: 14, height: 12, "aria-hidden": "true" }, make("rect", { class: c, width: 14, height: 12 }))))();
    const legend = make("p", { class: "moving-key" }, ...key(data).map(([c, name, form]) => make("span", {}, sample(c, form), name)));
    // Two panels stand side by side under the controls, three have one beside them; else a column would stay half empty.
    const many = { 2: " two", 3: " three" }[(data.panels || []).length] || "";
    const first = [...(how ? [make("p", { class: "moving-how" }, how)] : []), panel], then = [say, note, goal];
    const wide = kinds[kind].more ? [make("div", { class: "moving-wide" }, more, say, note, goal)] : []; // more fields, and a table of results
    const beside = wide.length ? first : many === " two" ? [make("div", {}, ...first), make("div", {}, ...then)] : how ? [...first, ...then] : first;
    const shows = how ? [legend, plots] : [legend, plots, say];
    figure.append(make("div", { class: how ? `moving-stage beside${many}` : "moving-stage" }, make("div", {}, ...beside), make("div", {}, ...shows), ...wide, numbers));
    const caption = figure.querySelector(".moving-still figcaption"); // of the still picture, which is hidden now
    if (caption) {
      figure.id = caption.parentNode.id;
      caption.parentNode.removeAttribute("id");
      figure.append(caption);
    }
    redraw();
    figure.classList.add("moving-live");
  };

  document.querySelectorAll("figure.moving").forEach(mount);
})();
