"""Believable text of any length, always the same for the same seed."""

from collections.abc import Iterator

SENTENCES = (
    "The short answer is yes, with one condition that is worth spelling out.",
    "There are three parts to this, and the second one usually causes the trouble.",
    "I would start with the smallest change that can be checked on its own.",
    "Most of the cost sits in a few places, so it pays to measure before changing anything.",
    "A simple table of the options makes the trade-off easier to see.",
    "If the input is empty, the function returns early and nothing else happens.",
    "That matches what the documentation describes, although the wording there is loose.",
    "Two requests that arrive together must not both believe they were first.",
    "In practice the difference is small, but it adds up over a month.",
    "The safest order is to write the record first and act on it afterwards.",
    "Here is a version that keeps the public interface as it was.",
    "You can verify this by running the same steps twice and comparing the results.",
    "It helps to name the thing by what it does rather than by where it lives.",
    "The error message points at the symptom; the cause is one step earlier.",
    "Nothing in the log contradicts that reading, so I would take it as given.",
    "For a team of your size, the plain approach is likely to be enough.",
    "Keep the old path in place until the new one has run for a week.",
    "The second paragraph repeats the first and could be cut without loss.",
    "Both figures are rounded, which explains the missing cent in the total.",
    "A short test with fixed values would have caught this on the first day.",
    "Roads are cheaper to maintain when heavy traffic pays its share.",
    "The map shows two routes, and the longer one avoids the bridge toll.",
    "Each entry has a counterpart, so the sum over all of them stays at zero.",
    "I left the names unchanged to keep the comparison readable.",
    "When the queue is full, new work is refused instead of being forgotten.",
    "This holds for every value in the range, including both ends.",
    "The reply fits on one page, and the appendix carries the details.",
    "Please tell me if the deadline has moved, because the plan depends on it.",
    "One more thing: the time zone of the report is UTC, not local time.",
    "To sum up, the idea works, and the remaining risk is easy to watch.",
    "The first column lists the plates and the last one the amount due.",
    "None of these steps needs special rights on the machine.",
)
SENTENCES_MIN = 2
SENTENCES_SPREAD = 6

_MULTIPLIER = 6364136223846793005
_INCREMENT = 1442695040888963407
_MASK = (1 << 64) - 1


def _numbers(seed: int) -> Iterator[int]:
    state = seed & _MASK
    while True:
        state = (state * _MULTIPLIER + _INCREMENT) & _MASK
        yield state >> 33


def paragraph(seed: int) -> str:
    """A few sentences; how many follows from the seed."""
    numbers = _numbers(seed)
    count = SENTENCES_MIN + next(numbers) % SENTENCES_SPREAD
    return " ".join(SENTENCES[next(numbers) % len(SENTENCES)] for _ in range(count))


def text_of_length(seed: int, *, characters: int) -> str:
    """Exactly so many characters."""
    numbers = _numbers(seed)
    parts, length = [], 0
    while length < characters:
        sentence = SENTENCES[next(numbers) % len(SENTENCES)]
        parts.append(sentence)
        length += len(sentence) + 1
    return " ".join(parts)[:characters].ljust(characters, ".")
