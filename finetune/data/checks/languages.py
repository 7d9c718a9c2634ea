"""Tell the languages of a corpus by script and by its commonest words, without a model; few rows of another are odd."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict

from finetune.data.checks.findings import Finding, Places, counted, excerpt, rows, some
from finetune.data.checks.material import Material, answers_of, prompt_of

# Words that several of these languages have stand in none of the lists: they would tell nothing
# fmt: off
_COMMON = {
    "English": "the of and to in is that it was for with be on not this are by from have which you what or at my how "
    "can will your they he she his has had but if when there been would we their all were into its who does did",
    "German": "der die das und ist nicht ein eine zu mit von den dem sich auf für im auch werden sie ich wird bei wie "
    "es aus einen dass oder haben sind kann",
    "French": "le les des et est un une du que pour dans qui pas sur au par ce il avec sont plus ne je vous la cette "
    "ont mais nous être comme",
    "Spanish": "el los las que y en una es por con del se lo como más pero sus su ya este para muy sobre también hasta "
    "hay donde desde",
    "Italian": "il di che è per non del della con sono dei al si da nel gli più questo anche alla ma delle nella ha",
    "Portuguese": "os que em um uma é para com não na por se dos ao foi sua são mais também pela pelo seu muito das",
    "Dutch": "de het een van dat niet op te met voor zijn aan er ook als bij door naar om maar wordt deze hij en wat",
    "Polish": "nie się jest że jak po za od dla przez był są ale oraz jego przy może tym które tego czy tylko już",
    "Turkish": "ve bir bu için ile da çok daha olarak gibi ne var kadar olan sonra ama değil her mi ki en",
}
# fmt: on
_LISTS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_SEVERAL = Counter(word for words in _LISTS.values() for word in words)
_LANGUAGE_OF = {
    word: language for language, words in _LISTS.items() for word in words if _SEVERAL[word] == 1 < len(word)
}
_SCRIPTS = {
    "CYRILLIC": "Cyrillic script",
    "GREEK": "Greek",
    "ARABIC": "Arabic script",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "Devanagari script",
    "BENGALI": "Bengali script",
    "THAI": "Thai",
    "HANGUL": "Korean",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "CJK": "Chinese or Japanese",
}
_LOOKED_AT = 2_000
_WORDS, _LETTERS = 12, 10
_SHARE, _AHEAD = 0.1, 2
_FEW = 0.1


def language_of(text: str) -> str | None:
    """Return the language of a text, or None where it is too short or too mixed to tell.

    Scripts of one language tell it; in Latin letters the language is the one whose commonest words are at least 10 %
    of twelve words or more, and twice as many as those of any other.
    """
    text = text[:_LOOKED_AT]
    foreign = [sign for sign in text if sign > "\u036f" and sign.isalpha()]
    if len(foreign) >= _LETTERS and 2 * len(foreign) > sum(map(str.isalpha, text)):
        scripts = Counter(unicodedata.name(sign, "?").split()[0] for sign in foreign)
        if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * len(foreign):
            return "Japanese"
        return _SCRIPTS.get(scripts.most_common(1)[0][0])
    words = re.findall(r"[^\W\d_]+", text.lower())
    if len(words) < _WORDS:
        return None
    common = Counter(_LANGUAGE_OF[word] for word in words if word in _LANGUAGE_OF)
    (best, most), (_, second) = (*common.most_common(2), ("", 0), ("", 0))[:2]
    return best if most >= _SHARE * len(words) and most >= _AHEAD * second else None


def check_languages(material: Material) -> list[Finding]:
    """Say which languages the rows are in, where less than a tenth of them are in another one than most."""
    start = _shared_start(material)
    of_language: dict[str, Places] = defaultdict(Places)
    silent = 0
    for example in material.everything():
        answers = [] if example.label is not None else answers_of(example)
        prompt = prompt_of(example)[start : start + _LOOKED_AT]
        language = language_of("\n".join([prompt, *answers]))
        silent += language is None
        if language:
            of_language[language].add(example.origin, f"{language}: {excerpt(prompt, 0, 40)}")
    ranked = sorted(of_language.items(), key=lambda entry: -entry[1].count)
    told = sum(found.count for _, found in ranked)
    odd = [found for _, found in ranked[1:] if found.count < _FEW * told]
    if not odd:
        return []
    count = sum(found.count for found in odd)
    others = counted([(language, found.count) for language, found in ranked])
    return [
        Finding(
            kind="languages",
            severity="note",
            count=count,
            what=f"{rows(count)} in another language than most ({others}; too short to tell: {silent:,})",
            examples=some(seen for found in odd for seen in found.examples),
            fix="leave them out unless the model is to speak these languages",
        )
    ]


def _shared_start(material: Material) -> int:
    """Return how many characters all prompts begin with, such as an instruction in another language."""
    if len(material.train) < 2:
        return 0
    shared = prompt_of(material.train[0])
    for example in material.everything():
        pairs = zip(shared, prompt_of(example), strict=False)
        shared = shared[: next((at for at, (one, other) in enumerate(pairs) if one != other), len(shared))]
        if not shared:
            break
    return len(shared)
