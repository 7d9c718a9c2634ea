"""Scorers that compare two texts: exact, contains, number, token_f1, rouge_l and chrf."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from finetune.evaluation.scoring.reading import last_number
from finetune.evaluation.scoring.scorer import Score, Scorer, commonest, graded, right_or_wrong
from finetune.evaluation.scoring.words import collapse, words, words_touch


def exact_scorer() -> Scorer:
    """The whole answer equals the reference, case included, up to white space and Unicode composition (NFC).

    Case counts because codes, names and SQL literals differ by it; `contains` and `label` overlook it.
    """

    def judge(answer: str, reference: str) -> Score:
        return Score(float(collapse(answer) == collapse(reference)))

    return right_or_wrong("exact", judge, "the answer equals the reference", best_of=True)


def contains_scorer() -> Scorer:
    """The reference occurs in the answer as whole words, whatever the case."""

    def judge(answer: str, reference: str) -> Score:
        text, wanted = collapse(answer).casefold(), collapse(reference).casefold()
        start = text.find(wanted)
        while start >= 0:
            end = start + len(wanted)
            if not (
                words_touch(text[max(0, start - 1) : start], wanted[:1])
                or words_touch(wanted[-1:], text[end : end + 1])
            ):
                return Score(1.0)
            start = text.find(wanted, start + 1)
        return Score(0.0)

    return right_or_wrong("contains", judge, "the reference occurs in the answer", best_of=True)


def number_scorer() -> Scorer:
    """The last number of the answer (the first after the last `####`) equals the reference's within a millionth.

    Numbers are read by `last_number`: 12 % is 12, $1,234.50 is 1234.5.
    """

    def judge(answer: str, reference: str) -> Score:
        given, wanted = last_number(answer), last_number(reference)
        right = given is not None and wanted is not None and math.isclose(given, wanted, rel_tol=1e-6)
        return Score(float(right), {"number": given})

    what = "the answer's last number equals the reference's"
    return right_or_wrong("number", judge, what, guess=_commonest_number, best_of=True)


def _commonest_number(references: Sequence[str]) -> str:
    return commonest([str(last_number(reference)) for reference in references])


def token_f1_scorer() -> Scorer:
    """Harmonic mean of precision and recall over words, as in SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250).

    Case, punctuation and English articles are overlooked. Words are Unicode words; in scripts without spaces each
    character counts as one.
    """

    def judge(answer: str, reference: str) -> Score:
        given, wanted = Counter(_content_words(answer)), Counter(_content_words(reference))
        if not given or not wanted:
            return Score(float(given == wanted))
        shared = (given & wanted).total()
        return Score(2 * shared / (given.total() + wanted.total()))

    return graded("token_f1", "mean word F1", judge, "word overlap of answer and reference")


def _content_words(text: str) -> list[str]:
    found = words(text)
    # An answer that is nothing but an article ("A", in multiple choice) is kept.
    return [word for word in found if word not in {"a", "an", "the"}] or found


def rouge_l_scorer() -> Scorer:
    """ROUGE-L: F1 over the longest common subsequence of words (Lin 2004, aclanthology.org/W04-1013).

    Words are those of `words`: folded, without punctuation, unstemmed; the whole text is one sequence.
    """

    def judge(answer: str, reference: str) -> Score:
        given, wanted = words(answer), words(reference)
        if not given or not wanted:
            return Score(float(given == wanted))
        return Score(2 * _common_subsequence(given, wanted) / (len(given) + len(wanted)))

    return graded("rouge_l", "mean ROUGE-L F1", judge, "longest common subsequence of answer and reference")


def _common_subsequence(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, by Hyyrö's bit-parallel method (2004): a bit a word of `first`."""
    places: dict[str, int] = {}
    for number, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << number
    all_bits = (1 << len(first)) - 1
    state = all_bits
    for word in second:
        met = state & places.get(word, 0)
        state = ((state + met) | (state - met)) & all_bits
    return len(first) - state.bit_count()


def chrf_scorer() -> Scorer:
    """ChrF2: F-score over runs of one to six characters, recall counting twice (Popović 2015, aclanthology W15-3049).

    As sacrebleu computes it for one segment, divided by 100: white space is left out, case counts, and runs longer
    than one of the two texts are not looked at. The score of a task is the mean over its items, not the corpus score.
    """

    def judge(answer: str, reference: str) -> Score:
        return Score(_chrf().sentence_score(collapse(answer), [collapse(reference)]).score / 100)

    return graded("chrf", "mean chrF", judge, "overlap of the runs of characters of answer and reference")


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
