"""Find personal data in texts by its shape and check digits: `personal_data(text)` gives the places, never a name.

Names, addresses and free descriptions of people have no shape; nobody should take a clean count for anonymity.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of personal data stands in a text, from `start` up to `end`, and its value in one spelling."""

    kind: str
    start: int
    end: int
    value: str


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of personal data: its pattern, and a proof that tells it from other texts of the same shape.

    `hints`: a text without any of these characters has none; looked for first, because that is fast.
    """

    kind: str
    pattern: re.Pattern[str]
    proof: Callable[[str], bool] = bool
    hints: str = "0123456789"


_ADDRESS = 10


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def luhn(number: str) -> bool:
    """Tell whether the last digit is the check digit of the others (ISO/IEC 7812-1), as on payment cards."""
    digits = [int(digit) for digit in reversed(_digits(number))]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _card(number: str) -> bool:
    return 13 <= len(_digits(number)) <= 19 and luhn(number)


def iban(text: str) -> bool:
    """Tell whether an account number has the length and the check digits of an IBAN (ISO 13616, modulo 97)."""
    plain = re.sub(r"[^0-9A-Z]", "", text.upper())
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1


def _public_address(text: str) -> bool:
    # Numbers of sections and versions have four parts too, of a digit or two
    try:
        return len(text) >= _ADDRESS and ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _phone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 15 and len(set(_digits(text))) > 2


_DATE = (
    r"(?:[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}|[0-9]{1,2}\.? [A-Z][a-z]{2,8}\.?,? [0-9]{4}"
    r"|[A-Z][a-z]{2,8}\.? [0-9]{1,2},? [0-9]{4})"
)
_BORN = r"(?i:dob|d\.o\.b\.|date of birth|birth ?date|born(?: on)?)"

DETECTORS: tuple[Detector, ...] = (
    Detector(
        "email",
        re.compile(r"(?<![\w.+-])\w[\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])"),
        hints="@",
    ),
    Detector("iban", re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}(?!\w)"), iban),
    Detector("card", re.compile(r"(?<![\w.,-])[2-6][0-9]{3}(?:[ -]?[0-9]{2,7}){2,5}(?![\w-]|[.,][0-9])"), _card),
    Detector(
        "ssn",
        re.compile(r"(?<![\w-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w-])"),
    ),
    Detector(
        "record_number",
        re.compile(
            r"(?i)(?<!\w)(?:mrn|medical record (?:number|no\.?)|patient (?:id|number|no\.?))\s{0,3}[:#=]?\s{0,3}"
            r"[A-Z]{0,3}-?[0-9]{5,12}(?!\w)"
        ),
    ),
    Detector(
        "birth_date",
        re.compile(rf"(?<!\w){_BORN}\s{{0,3}}:?\s{{0,3}}{_DATE}(?!\w)"),
    ),
    Detector(
        "ip",
        re.compile(r"(?<![\w.:-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])"),
        _public_address,
        hints=".",
    ),
    Detector("ip", re.compile(r"(?<![\w.:])(?:[0-9A-Fa-f]{1,4}:{1,2}){3,7}[0-9A-Fa-f]{1,4}(?![\w:])"), _public_address),
    Detector(
        "phone",
        re.compile(
            r"(?<![\w.,+-])(?:\+[1-9][0-9]{0,2}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?(?:[0-9]{2,5}[ .-]?){1,4}[0-9]{2,5}"
            r"|\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-][0-9]{4}"
            r"|(?:1-)?[2-9][0-9]{2}([-.])[2-9][0-9]{2}\1[0-9]{4})(?![\w-])"
        ),
        _phone,
    ),
)

_GAP = re.compile(r"[ -]")

NAMES = {
    "email": "e-mail",
    "iban": "IBAN",
    "card": "payment card",
    "ssn": "social security number",
    "record_number": "medical record number",
    "birth_date": "date of birth",
    "ip": "IP address",
    "phone": "phone number",
}


def personal_data(text: str) -> list[Place]:
    """Return where personal data stands in a text, in order, without overlaps.

    E-mail addresses, account numbers (IBAN, checked modulo 97), payment cards (Luhn), US social security numbers,
    medical record numbers and dates of birth where words say so, public IP addresses, and phone numbers.

    Args:
        text: any text.
    """
    places: list[Place] = []
    present = {hint: any(sign in text for sign in hint) for hint in {detector.hints for detector in DETECTORS}}
    for detector in DETECTORS:
        if not present[detector.hints]:
            continue
        for found in detector.pattern.finditer(text):
            start, end = found.start(), found.start() + _proven(detector, found.group())
            if start < end and all(end <= place.start or place.end <= start for place in places):
                value = re.sub(r"[\s.()-]+", "", text[start:end]).casefold()
                places.append(Place(detector.kind, start, end, value))
    return sorted(places, key=lambda place: place.start)


def _proven(detector: Detector, found: str) -> int:
    """Return how much of what has the shape passes the proof: other groups of signs may follow a number; 0 for none."""
    ends = [len(found), *(gap.start() for gap in reversed(list(_GAP.finditer(found))))]
    shorter = (end for end in ends[1:] if detector.pattern.fullmatch(found[:end]) and detector.proof(found[:end]))
    return len(found) if detector.proof(found) else next(shorter, 0)


def veiled(value: str) -> str:
    """Return a value that may be shown: its shape alone, at most the first letter or digit in clear."""
    first = next((index for index, sign in enumerate(value) if sign.isalnum()), 0)
    return value[: first + 1] + re.sub(r"[^\W_]", "*", value[first + 1 :])
