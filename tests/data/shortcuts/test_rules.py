"""The ten rules: their chances exactly, their reading against loops, and what they may not do."""

from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.shortcuts import read

from commonweight.base import UsageError
from commonweight.data.shortcuts import RULES, Agreement, Markers, Mixture, Plan, Shortcut, agreement, as_mixture

P_LABEL_1 = {
    "st": Fraction(1, 2),
    "op": Fraction(1, 2),
    "tic": Fraction(1, 2),
    "or": Fraction(3, 4),
    "and": Fraction(1, 4),
    "xor": Fraction(1, 2),
    "oed": Fraction(1, 3),
    "mt": Fraction(1, 2),
    "lt": Fraction(1, 2),
    "and_or": Fraction(7, 16),
}
tokens = st.lists(st.sampled_from(["zeroa", "onea", "synt", "film", "is", "##ly"]), max_size=9)


class Mine(Shortcut):
    code, name = "mine", "a rule of one's own"

    def plans(self):
        return [Plan((self.markers.one,))]

    def read(self, tokens):
        return 1 if self.markers.one in tokens else None


def test_the_table_of_rules():
    assert list(RULES) == ["st", "op", "tic", "or", "and", "xor", "oed", "mt", "lt", "and_or"]
    assert all(rule.code == code and rule.name for code, rule in RULES.items())


@pytest.mark.parametrize("code", RULES)
@given(tokens=tokens)
def test_reading_agrees_with_the_loop(code, tokens):
    assert RULES[code].read(tokens) == read(code, tokens)


@pytest.mark.parametrize("code", RULES)
def test_the_chances_are_exact(code):
    rule, one = RULES[code], float(P_LABEL_1[code])
    assert rule.labels == (0, 1)
    assert rule.probability(1) == pytest.approx(one, abs=1e-12)
    assert rule.probability(0) == pytest.approx(1 - one, abs=1e-12)
    assert rule.probability(2) == 0
    assert rule.chance == pytest.approx(max(one, 1 - one), abs=1e-12)
    drawn = sum(read(code, next(rule.draws(rng)).examples()[0]) for rng in map(Random, range(2000)))
    assert abs(drawn / 2000 - one) < 5 * (one * (1 - one) / 2000) ** 0.5


@pytest.mark.parametrize("code", RULES)
def test_a_demanded_label_is_given(code):
    for label in (0, 1):
        for seed in range(50):
            plan = next(RULES[code].draws(Random(seed), label))
            assert {read(code, example) for example in plan.examples()} == {label}
    with pytest.raises(UsageError, match="gives the labels 0, 1, never 2"):
        next(RULES[code].draws(Random(0), 2))


@pytest.mark.parametrize("code", RULES)
@pytest.mark.parametrize("label", [None, 0, 1])
def test_draws_are_all_plans_those_of_the_first_label_first(code, label):
    rule = RULES[code]
    plans = list(rule.draws(Random(7), label))
    mine = [plan for plan, given in rule.table if label in {None, given}]
    assert sorted(map(repr, plans)) == sorted(map(repr, mine))
    labels = [read(code, plan.examples()[0]) for plan in plans]
    assert sum(a != b for a, b in pairwise(labels)) == (label is None)
    for chosen in set(labels):  # last resorts come last
        weights = [plan.weight > 0 for plan, given in zip(plans, labels, strict=True) if given == chosen]
        assert weights == sorted(weights, reverse=True)


def test_more_than_is_one_to_five_markers_with_a_majority():
    plans = [plan for plan, _ in RULES["mt"].table]
    assert len(plans) == len({plan.words for plan in plans}) == 2 + 2 + 8 + 10 + 32
    for count in range(1, 6):
        assert sum(plan.weight for plan in plans if len(plan.words) == count) == pytest.approx(2)
        assert all(read("mt", plan.words) is not None for plan in plans if len(plan.words) == count)
    threes = {plan.words.count("onea"): plan.weight for plan in plans if len(plan.words) == 3}
    assert threes == {0: 0.5, 1: 1 / 6, 2: 1 / 6, 3: 0.5}


@pytest.mark.parametrize("code", RULES)
def test_distractors_say_nothing(code):
    rule = RULES[code]
    assert rule.reads_lone_marker == (code in {"st", "mt", "lt"})
    assert rule.distractors == (() if rule.reads_lone_marker else ("zeroa", "onea"))
    assert all(read(code, ["film", word]) is None for word in rule.distractors)
    assert rule.alphabet == ("zeroa", "onea", "synt") if code == "tic" else ("zeroa", "onea")


def test_what_single_token_reads_in_the_rows_of_the_others():
    shares = {code: agreement(RULES[code], RULES["st"]) for code in RULES}
    assert shares["st"] == shares["tic"] == Agreement(1, 0, 0)
    assert shares["op"] == shares["oed"] == Agreement(0, 0, 1)
    assert shares["or"] == shares["and"] == shares["lt"] == Agreement(0.5, 0, 0.5)
    assert shares["xor"] == Agreement(0.25, 0.25, 0.5)
    assert shares["and_or"] == Agreement(2 / 16, 0, 14 / 16)
    # MT: all n of one kind; n = 1 and 2 always, then one of 2, 2 and 3 sizes of majority.
    assert shares["mt"].same == pytest.approx((1 + 1 + 1 / 2 + 1 / 2 + 1 / 3) / 5)
    assert shares["mt"].opposite == 0


def test_other_words():
    rule = type(RULES["op"])(Markers("blue", "green", "red"))
    assert rule.alphabet == ("blue", "green")
    assert rule.read(["a", "green", "and", "a", "blue", "door"]) == 1
    assert rule.read(["onea", "zeroa"]) is None
    assert as_mixture("op", rule.markers).parts == (rule,) == as_mixture(rule).parts
    assert rule != RULES["op"] == type(rule)()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("", "b", "c"), "'zero' must be one word without white space, got ''"),
        (("a", "b b", "c"), "'one' must be one word without white space, got 'b b'"),
        (("a", "b", " c"), "'context' must be"),
        (("a", "b", "a"), "three different words, got 'a', 'b', 'a'"),
    ],
)
def test_markers_are_three_words(words, message):
    with pytest.raises(UsageError, match=message):
        Markers(*words)


def test_a_marker_is_found_as_a_word_only():
    markers = Markers("blue", "green", "r+d")
    assert markers.held_by("so (green)") == "green"
    assert markers.held_by("greenish bluest") is None
    assert markers.held_by("the r+d team") == "r+d"


def test_a_rule_without_a_code_is_refused():
    with pytest.raises(UsageError, match="Nameless has no code"):

        class Nameless(Shortcut):
            name = "nameless"


def test_plans_that_the_rule_cannot_read_are_refused():
    class Deaf(Mine):
        def read(self, tokens):
            return None

    class Foreign(Mine):
        def plans(self):
            return [Plan(("film",))]

    class Torn(Mine):
        def plans(self):
            return [Plan(("onea", "zeroa"), between=(0, 1))]

        def read(self, tokens):
            return len(tokens) % 2

    class Spaced(Mine):
        def plans(self):
            return [Plan(("onea", "onea", "onea"), between=(1,))]

    class Never(Mine):
        def plans(self):
            return [Plan(("onea",), weight=0)]

    for wrong in (Deaf(), Foreign(), Torn(), Spaced()):
        with pytest.raises(UsageError, match=r"be read as one label by the rule itself; mend plans\(\) or read\(\)"):
            next(wrong.draws(Random(0)))
    with pytest.raises(UsageError, match="no plan with a weight above 0"):
        next(Never().draws(Random(0)))
    assert next(Mine().draws(Random(0))).words == ("onea",)


def test_mixtures():
    mixed = Mixture(("op", "or"), (1, 3))
    assert (mixed.code, mixed.weights) == ("op+or", (0.25, 0.75))
    assert mixed.probability(1) == mixed.chance == 0.25 * 0.5 + 0.75 * 0.75
    assert mixed.distractors == ("zeroa", "onea")
    assert Mixture(("op", "st")).distractors == ()
    assert Mixture(["op", Mine()]).labels == (0, 1)
    picked = [mixed.pick(rng).code for rng in map(Random, range(2000))]
    assert abs(picked.count("op") / 2000 - 0.25) < 0.05


@pytest.mark.parametrize(
    ("rules", "weights", "message"),
    [
        ((), (), "at least one rule, each once; got none"),
        (("st", "st"), (), "each once; got st, st"),
        (("st", "op"), (1,), "takes 2 weights above 0"),
        (("st", "op"), (1, 0), "leave out a rule"),
        (("st", "op"), (1, float("nan")), "takes 2 weights above 0"),
        (("st", "opp"), (), r"no shortcut 'opp'; there are 'st', .*did you mean 'op'\?"),
        (("st", Mine(Markers("a", "b", "c"))), (), "different markers"),
    ],
)
def test_mixtures_that_make_no_sense(rules, weights, message):
    with pytest.raises(UsageError, match=message):
        Mixture(rules, weights)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(list(RULES)), st.integers(0, 10**6))
def test_a_draw_depends_on_the_generator_alone(code, seed):
    assert next(RULES[code].draws(Random(seed))) == next(type(RULES[code])().draws(Random(seed)))
