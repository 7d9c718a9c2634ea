"""Write the support-desk triage tickets: `python data/make_tickets.py` rewrites `data/tickets/` byte for byte.

All wording lies in `tickets_phrases.json`, apart for train and test. A ticket is a layout whose slots are filled with
a problem (decides queue and first half of the summary), an effect (decides priority and second half) and by-talk that
decides nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
PHRASES = HERE / "tickets_phrases.json"
OUTPUT = HERE / "tickets"

SEED = 20
SIZES = {"train": 1500, "test": 300}

BACK_REFERENCE = 0.12  # the product is named in a sentence of its own, the problem says "the program"
SECOND_EFFECT = 0.15  # a weaker effect is told beside the one that decides
BY_TALK = {"closed": 0.3, "otherproduct": 0.3, "tone": 0.4}
TONE_FITS = ("unstated", "workaround", "slowed")  # shouting beside "no rush" would make no sense
CALM = ("no_rush", "far_off", "curious")  # and so would anger
CONTEXTS = {"question": "contextq", "claim": "contextc"}  # "I restarted it" does not go with an invoice
TYPOS = {"terse": 0.3, "lower": 0.35, "plain": 0.15, "chatty": 0.2, "angry": 0.25, "nonnative": 0.3}

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
FEW = ("two", "three", "four", "five", "six")

Phrases = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a ticket is about, before it is worded."""

    kind: Phrases
    problem: str
    effect: str
    second: str | None
    product: str
    other: str
    customer: str


def main() -> None:
    """Write both splits."""
    phrases: Phrases = json.loads(PHRASES.read_text(encoding="utf-8"))
    OUTPUT.mkdir(exist_ok=True)
    first = 1
    for split, size in SIZES.items():
        rows = make_split(phrases, split, size, first)
        first += size
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (OUTPUT / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        print(f"{split}: {len(rows)} tickets")


def make_split(phrases: Phrases, split: str, size: int, first: int) -> list[dict[str, Any]]:
    """Word `size` tickets of one split, numbered from `first`, no two with the same text."""
    rng = Random(f"{SEED} {split}")
    tickets: dict[str, Case] = {}
    for kind, problem in plan(phrases, split, size, rng):
        case = draw_case(phrases, split, kind, problem, rng)
        text = word(phrases, split, case, rng)
        while text in tickets:
            text = word(phrases, split, case, rng)
        tickets[text] = case
    return [row(phrases, f"T-{first + i:05d}", text, case) for i, (text, case) in enumerate(tickets.items())]


def plan(phrases: Phrases, split: str, size: int, rng: Random) -> list[tuple[Phrases, str]]:
    """Share `size` tickets out over queues by weight, and within a queue evenly over kinds and phrasings."""
    weights: dict[str, int] = phrases["queues"]
    planned: list[tuple[Phrases, str]] = []
    done = 0
    for queue, weight in weights.items():
        done += weight
        count = round(size * done / sum(weights.values())) - len(planned)
        kinds = [kind for kind in phrases["kinds"] if kind["queue"] == queue]
        for i in range(count):
            kind, turn = kinds[i % len(kinds)], i // len(kinds)
            planned.append((kind, kind[split][turn % len(kind[split])]))
    rng.shuffle(planned)
    return planned


def draw_case(phrases: Phrases, split: str, kind: Phrases, problem: str, rng: Random) -> Case:
    """Choose priority by the kind's group, an effect of that priority, and who writes about which product."""
    names = phrases["splits"][split]
    weights: dict[str, int] = phrases["groups"][kind["group"]]
    priority = rng.choices(list(weights), list(weights.values()))[0]
    barred = phrases["not_in_group"][kind["group"]]
    effect = rng.choice([e for e, v in phrases["effects"].items() if v["priority"] == priority and e not in barred])
    weaker = [e for e in phrases["second_effect"].get(effect, []) if e not in barred]
    second = rng.choice(weaker) if weaker and rng.random() < SECOND_EFFECT else None

    groups = {"device": ["device", "portable"], "any": list(names["products"])}.get(kind["on"], [kind["on"]])
    product = rng.choice([p for group in groups for p in names["products"][group]])
    other = rng.choice([p for group in names["products"].values() for p in group if p != product])
    customer = f"{rng.choice(names['customers']['first'])} {rng.choice(names['customers']['last'])}"
    return Case(
        kind=kind, problem=problem, effect=effect, second=second, product=product, other=other, customer=customer
    )


def row(phrases: Phrases, key: str, text: str, case: Case) -> dict[str, Any]:
    """Pair a worded ticket with its answer."""
    effect = phrases["effects"][case.effect]
    answer = {
        "queue": case.kind["queue"],
        "priority": effect["priority"],
        "product": case.product,
        "summary": f"{case.kind['summary'].format(product=case.product)}; {effect['summary']}",
    }
    return {"id": key, "customer": case.customer, "ticket": text, "answer": answer}


def word(phrases: Phrases, split: str, case: Case, rng: Random) -> str:
    """Fill a layout, roughen it in the manner of its style, and put the values in."""
    material = phrases["splits"][split]
    layouts = [item for item in material["layouts"] if item["style"] != "angry" or case.effect not in CALM]
    layout = rng.choices(layouts, [item["weight"] for item in layouts])[0]
    parts = {
        "problem": choose_words(case.problem, rng),
        "impact": impact(phrases, split, case, rng),
        "extra": by_talk(material["pools"], case, rng) if "{extra}" in layout["text"] else "",
    }
    named_in_layout = "{product}" in layout["text"]
    if rng.random() < (0.5 if named_in_layout else BACK_REFERENCE):
        about = "" if named_in_layout else rng.choice(material["pools"]["about"]) + " "
        parts["problem"] = about + refer_back(parts["problem"], case.kind["on"])
    for slot in ("problem", "impact"):
        parts[slot] = punctuate(parts[slot], capital=layout["style"] not in ("terse", "lower"))
    text = fill_layout(layout["text"], parts, material["pools"], case.kind["group"], rng)
    if layout["style"] == "nonnative":
        text = re.sub(r"\b(the|a|an) (?=\w)", lambda m: "" if rng.random() < 0.6 else m.group(), text)
    if layout["style"] == "lower":
        text = text.lower().rstrip(".!")
    if rng.random() < TYPOS.get(layout["style"], 0.0):
        text = misspell(text, 1 + rng.randrange(3), rng)
    return fill_values(text, case, material, rng)


def impact(phrases: Phrases, split: str, case: Case, rng: Random) -> str:
    """Word the effect and, where there is one, the weaker effect beside it."""
    told = [phrases["effects"][effect][split] for effect in (case.effect, case.second) if effect]
    if case.effect == "curious" and rng.random() < 0.35:
        return ""  # a bare question is a mere question without saying so
    return " ".join(punctuate(choose_words(rng.choice(wordings), rng)) for wordings in told if wordings)


def by_talk(pools: dict[str, list[str]], case: Case, rng: Random) -> str:
    """Draw a sentence that must not change the answer, or none; closed matters are those of other queues."""
    closed = [name for name in pools if name.startswith("closed_") and name != f"closed_{case.kind['queue']}"]
    for sort, share in BY_TALK.items():
        if rng.random() < share and (sort != "tone" or case.effect in TONE_FITS):
            return choose_words(rng.choice(pools[rng.choice(closed) if sort == "closed" else sort]), rng)
    return ""


def punctuate(text: str, *, capital: bool = True) -> str:
    """End a telegram-style phrase with a full stop and, unless told otherwise, begin it with a capital."""
    if not text:
        return text
    stopped = text if text[-1] in ".!?" else f"{text}."
    return stopped[0].upper() + stopped[1:] if capital else stopped


def choose_words(phrase: str, rng: Random) -> str:
    """Settle each `[this|that]` of a phrase."""
    return re.sub(r"\[([^\]]*)\]", lambda match: rng.choice(match.group(1).split("|")), phrase)


def refer_back(problem: str, on: str) -> str:
    """Say "the program" (device, product) for `{product}`, which is then named elsewhere in the ticket."""
    noun = {"app": "program", "any": "product"}.get(on, "device")
    if re.match(r"\{product\}(?! \w)", problem):
        return problem  # "{product}, serial ..." opens with the name as a heading
    text = re.sub(r"\b(the|our|my|your|new|two|a) \{product\}", rf"\1 {noun}", problem, flags=re.IGNORECASE)
    text = text.replace("{product}", f"the {noun}")
    return text[0].upper() + text[1:]


def fill_layout(layout: str, parts: dict[str, str], pools: dict[str, list[str]], group: str, rng: Random) -> str:
    """Fill the wording slots; a line left with nothing but its label is dropped."""
    used: set[str] = set()

    def fill(match: re.Match[str]) -> str:
        slot = match.group(1).rstrip("2")
        if slot in parts:
            return parts[slot]
        if slot not in pools:
            return match.group()
        pool = pools[CONTEXTS.get(group, slot) if slot == "context" else slot]
        phrase = rng.choice([item for item in pool if item not in used])
        used.add(phrase)
        return choose_words(phrase, rng)

    lines = []
    for line in layout.split("\n"):
        label = re.split(r"\{\w+\}", line)[0]
        filled = re.sub(r" {2,}", " ", re.sub(r"\{(\w+)\}", fill, line)).rstrip()
        if not line or filled != label.rstrip():
            lines.append(filled.strip(" ") if filled else "")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def misspell(text: str, count: int, rng: Random) -> str:
    """Put a slip of the finger into `count` longer lower-case words; slots stay as they are."""
    words = list(re.finditer(r"(?<![\w{.@-])[a-z]{5,}(?![\w}@-])", text))
    for match in sorted(rng.sample(words, min(count, len(words))), key=lambda m: -m.start()):
        word, at = match.group(), 1 + rng.randrange(len(match.group()) - 2)
        slips = (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
        text = text[: match.start()] + rng.choice(slips) + text[match.end() :]
    return text


def fill_values(text: str, case: Case, material: Phrases, rng: Random) -> str:
    """Put names, dates, numbers and references into the value slots."""
    fixed = {"product": case.product, "other": case.other, "customer": case.customer}

    def value(slot: str) -> str:
        person = rng.choice(material["persons"])
        domain = re.sub(r"[^a-z]+", "-", case.customer.lower())
        number = rng.randrange
        draws = {
            "person": person,
            "email": f"{person.lower().split()[0]}.{person.lower().split()[-1]}@{domain}.example",
            "town": rng.choice(material["towns"]),
            "month": rng.choice(MONTHS),
            "weekday": rng.choice(WEEKDAYS),
            "day": str(number(4, 20)),
            "date": f"{number(1, 29)} {rng.choice(MONTHS)}",
            "hour": rng.choice([f"{number(2, 6)} pm", f"{number(13, 18)}:{rng.choice(['00', '30'])}"]),
            "few": rng.choice(FEW),
            "n": str(number(4, 16)),
            "big": str(number(30, 400)),
            "num": str(number(10_000, 900_000)),
            "ext": str(number(101, 900)),
            "ref": f"{rng.choice(['SO-', 'INV-', 'R', 'Q-', '#'])}{number(1_000, 99_999)}",
            "serial": f"SN{number(10, 99)}{rng.choice('ABCDEFKLX')}-{number(1_000, 9_999)}",
            "amount": rng.choice(["€{}.{:02}", "${}.{:02}", "{}.{:02} EUR"]).format(number(19, 2_400), number(0, 100)),
        }
        return fixed[slot] if slot in fixed else draws[slot]

    filled = re.sub(r"\{(\w+)\}", lambda match: value(match.group(1)), text)
    return filled[0].upper() + filled[1:] if filled.startswith(("The program", "The device")) else filled


if __name__ == "__main__":
    main()
