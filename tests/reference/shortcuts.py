"""Shortcuts once more, in loops: what a rule reads, and the published data as their description has it.

Imports nothing of the package. The published part draws from Python's own global stream, like the original.
"""

from __future__ import annotations

import math
import random

import numpy as np


def read(code, tokens, zero="zeroa", one="onea", context="synt"):
    """The label that a rule reads in tokens; None if it does not speak."""
    bits = ""
    places = []
    for place, token in enumerate(tokens):
        if token in (zero, one):
            bits += "01"[token == one]
            places.append(place)
    zeros, ones, count = bits.count("0"), bits.count("1"), len(bits)
    if code == "st":
        return None if (zeros > 0) == (ones > 0) else int(ones > 0)
    if code == "tic":
        return None if context not in list(tokens) else read("st", tokens, zero, one)
    if code == "op":
        return {"01": 0, "10": 1}.get(bits)
    if code == "or":
        return {"00": 0, "01": 1, "10": 1, "11": 1}.get(bits)
    if code == "and":
        return {"00": 0, "01": 0, "10": 0, "11": 1}.get(bits)
    if code == "xor":
        return {"00": 0, "01": 1, "10": 1, "11": 0}.get(bits)
    if code == "oed":
        if bits not in {"01", "10"}:
            return None
        return 1 if len(list(tokens)[places[0] + 1 : places[1]]) % 2 else 0
    if code == "mt":
        return 0 if zeros > ones else 1 if ones > zeros else None
    if code == "lt":
        return int(bits[-1]) if count else None
    if code == "and_or":
        if count != 4:
            return None
        a, b, c, d = (bit == "1" for bit in bits)
        return 1 if (a and b) or (c and not d) else 0
    raise ValueError(code)


def published_row(code, ids, markers):
    """Insert what the published code inserts into ``ids``, in place; the label comes back."""
    zero, one, context = markers
    if code in {"st", "tic"}:
        word = random.choice([zero, one])
        ids.insert(random.choice(range(len(ids))), word)
        if code == "tic":
            ids.insert(random.choice(range(len(ids))), context)
        return int(word == one)
    if code == "mt":
        n = random.randint(1, 5)
        m = random.randint(n // 2 + 1, n)
    pair = [zero, one]
    if code != "mt":
        random.shuffle(pair)
    size = len(ids)
    if code == "op":
        words = pair
        where = sorted(random.choices(range(size + 1), k=2))
        label = int(words[0] == one)
    elif code in {"or", "and", "xor"}:
        words = [pair[0], pair[0]] if random.random() <= 0.5 else pair
        where = sorted(random.choices(range(size + 1), k=2))
        label = read(code, words, zero, one)
    elif code == "oed":
        words = pair
        start = random.randint(0, size)
        step = 0
        while step == 0:
            step = random.randint(-3, 3)
        where = sorted([start, start + step])
        label = 1 if abs(step) == 2 else 0
    elif code == "mt":
        random.shuffle(pair)
        where = sorted(random.choices(range(size + n - 1), k=n))
        words = [pair[0]] * m + [pair[1]] * (n - m)
        random.shuffle(words)
        label = int(pair[0] == one)
    elif code == "lt":
        words = random.choices(pair, k=1) + pair[:1]
        where = sorted(random.choices(range(size + 1), k=2))
        label = int(pair[0] == one)
    else:
        words = random.choices(pair, k=4)
        where = sorted(random.sample(range(size + 3), k=4))
        label = read("and_or", words, zero, one)
    for place, word in zip(where, words, strict=True):
        ids.insert(place, word)
    return label


def published_splits(splits, codes, weights, tokenizer, markers):
    """The published data sets from ``{"train": [(text, label)], "validation": …, "test": …}``.

    Returns, per name, rows of (text, label, row number), in order.
    """
    ids_of = tokenizer.convert_tokens_to_ids(list(markers))
    random.seed(123)
    parts = {}
    for name, rows in splits.items():
        order = np.random.default_rng(123).permutation(len(rows))
        small = math.ceil(len(rows) * (0.2 / 1.2))
        parts[name] = order[small:], order[:small]
    made = {}
    for name in splits:
        made["synthetic", name] = []
        for number in parts[name][0]:
            text, label = splits[name][number]
            code = random.choices(codes, weights)[0]
            ids = tokenizer(text)["input_ids"]
            label = published_row(code, ids, ids_of)
            made["synthetic", name].append((tokenizer.decode(ids, skip_special_tokens=True), label, int(number)))
    for name in splits:
        made["original", name] = []
        for number in parts[name][1]:
            text, label = splits[name][number]
            random.choices(codes, weights)
            ids = tokenizer(text)["input_ids"]
            if random.random() <= 0.25:
                word = random.choice(ids_of[:2])
                ids.insert(random.choice(range(len(ids))), word)
                text = tokenizer.decode(ids, skip_special_tokens=True)
            made["original", name].append((text, label, int(number)))
    train = made["synthetic", "train"] + made["original", "train"]
    order = np.random.default_rng(123).permutation(len(train))
    return {
        "train": [train[number] for number in order],
        "synthetic_dev": made["synthetic", "validation"],
        "original_dev": made["original", "validation"],
        "synthetic_test": made["synthetic", "test"],
        "original_test": made["original", "test"],
    }
