"""The LaTeX of the book's formulas, read and computed: the little of it that the formulas use."""

import json
import math
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
DISPLAY = re.compile(r"```\{math\}\n:label: (eq-[a-z-]+)\n(.*?)```", re.S)
SPACING = re.compile(r"\\(?:left|right|[bB]igl?|[bB]igr?|quad)(?![a-zA-Z])|\\[,;:! ]|&")
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\S")
NAMED = ("\\mathrm", "\\text", "\\operatorname", "\\operatorname*")
MARKS = ("\\bar", "\\tilde", "\\hat", "\\overline")


def formulas() -> dict[str, str]:
    """Label → LaTeX of each labelled formula in the chapters; one that stands twice stands twice alike."""
    found = {}
    for path in sorted(ROOT.glob("chapters/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        found |= dict(DISPLAY.findall(text))
    return found


def sides(latex: str) -> list[list[str]]:
    """A formula's statements, between \\qquad or in lines of their own, each as its sides, between equals signs."""
    latex = re.sub(r"\\(?:begin|end)\{aligned\}", "", latex)
    latex = re.sub(r"\\\\\s*&", " ", latex)  # a line that begins at the mark goes on
    statements = re.split(r"\\qquad|\\\\(?=\s)", latex)
    return [re.split(r"=(?![^{]*\})", re.split(r"\\(?:ge|le)\b", s)[0].strip(" .,&\n")) for s in statements]


class Unknown(Exception):
    """A symbol without a value."""


def value(latex: str, known: dict, ranges: dict):
    """What an expression is worth. known: symbol → number, array or function; ranges: index → its values."""
    reader = _Reader(TOKEN.findall(SPACING.sub(" ", latex)), dict(known), ranges)
    result = reader.sum()
    if reader.tokens:
        raise SyntaxError(f"not read: {' '.join(reader.tokens)}")
    return result


class _Reader:
    def __init__(self, tokens, known, ranges):
        self.tokens, self.known, self.ranges = tokens, known, ranges

    def peek(self):
        return self.tokens[0] if self.tokens else ""

    def take(self, expected=None):
        token = self.tokens.pop(0) if self.tokens else ""
        if expected is not None and token != expected:
            raise SyntaxError(f"{expected} expected, {token!r} found before {' '.join(self.tokens)}")
        return token

    def group(self) -> list[str]:
        """The tokens of {…}, or one token."""
        if self.peek() != "{":
            return [self.take()]
        found, depth = [], 0
        while True:
            token = self.take()
            if not token:
                raise SyntaxError("a brace is not closed")
            depth += (token == "{") - (token == "}")
            if not depth:
                return found[1:]
            found.append(token)

    def inside(self, tokens, **more):
        reader = _Reader(list(tokens), self.known | more, self.ranges)
        result = reader.sum()
        if reader.tokens:
            raise SyntaxError(f"not read: {' '.join(reader.tokens)}")
        return result

    def sum(self):
        sign = -1 if self.peek() == "-" else 1
        if self.peek() in ("+", "-"):
            self.take()
        total = sign * self.product()
        while self.peek() in ("+", "-"):
            total = total + self.product() if self.take() == "+" else total - self.product()
        return total

    def product(self):
        result = self.power()
        while self.peek() not in ("", "+", "-", ")", "]", ",", "}", "|", "\\|", "\\Vert", "\\rVert"):
            if self.peek() == "/":
                self.take()
                result = result / self.power()
            else:
                if self.peek() in ("\\cdot", "\\times"):
                    self.take()
                result = result * self.power()
        return result

    def power(self):
        result = self.atom()
        if self.peek() == "^":
            self.take()
            exponent = self.group()
            result = result @ self.power() if exponent == ["\\top"] else result ** self.inside(exponent)
        return result

    def atom(self):
        token = self.take()
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return float(token)
        if token in ("(", "["):
            result = self.sum()
            self.take({"(": ")", "[": "]"}[token])
            return result
        if token in ("\\lVert", "|"):
            result = self.sum()
            self.take({"\\lVert": "\\rVert", "|": "|"}[token])
            return np.linalg.norm(result) if token == "\\lVert" else abs(result)
        if token == "{":
            self.tokens.insert(0, "{")
            return self.inside(self.group())
        if token == "\\frac":
            return self.inside(self.group()) / self.inside(self.group())
        if token == "\\sqrt":
            return math.sqrt(self.inside(self.group()))
        if token == "\\underbrace":
            body = self.group()
            if self.peek() == "_":
                self.take()
                self.group()
            return self.inside(body)
        if token in ("\\sum", "\\max", "\\min"):
            return self.over({"\\sum": sum, "\\max": max, "\\min": min}[token])
        if token == "\\log":
            return np.log(self.power())
        if token == "e" and self.peek() == "^":
            return math.e
        return self.symbol(token)

    def over(self, gather):
        """Σ, max or min over an index; what it takes is the product behind it."""
        self.take("_")
        index, *condition = self.group()
        if condition and condition[0] == "=":
            condition = []
        if self.peek() == "^":
            self.take()
            self.group()
        tokens, values = self.tokens, []
        for i in self.ranges[index]:
            if condition and condition[0] == "\\ne" and i == self.known[condition[1]]:
                continue
            reader = _Reader(list(tokens), self.known | {index: i}, self.ranges)
            values.append(reader.product())
            self.tokens = reader.tokens
        return gather(values)

    def symbol(self, token):
        """A name with its mark and index; a function is called with what follows."""
        name = token
        if token in NAMED:
            name = "".join(self.group())
        elif token in MARKS:
            name = f"{token[1:]} {''.join(self.group())}"
        if self.peek() == "_":
            self.take()
            name = self.indexed(name, self.group())
        elif name not in self.known:
            raise Unknown(name)
        else:
            name = self.known[name]
        return self.call(name) if callable(name) else name

    def indexed(self, name, index):
        plain = "".join(token for token in index if token not in (*NAMED, "{", "}", ","))
        if f"{name}_{plain}" in self.known:
            return self.known[f"{name}_{plain}"]
        if name not in self.known or any(i not in self.known and not i.isdigit() for i in index):
            raise Unknown(f"{name}_{plain}")
        found = self.known[name]
        for i in index:
            found = found[self.known[i] if i in self.known else int(i)]
        return found

    def call(self, function):
        if self.peek() != "(":
            return function(self.power())
        self.take("(")
        arguments = [self.sum()]
        while self.peek() in (",", "\\|", "\\Vert"):
            self.take()
            arguments.append(self.sum())
        self.take(")")
        return function(*arguments)
