"""Closed forms for right-or-wrong scores: intervals, McNemar's test, detectable difference; used by `statistics`."""

from __future__ import annotations

import math

from scipy import optimize, stats

POWER = 0.8


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22:209-212)."""
    found = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(found.low), float(found.high)


def mcnemar_mid_p(wins: int, losses: int) -> float:
    """Two-sided mid-p value of McNemar's test (Fagerland, Lydersen & Laake 2013, BMC Med. Res. Methodol. 13:91).

    Given the wins + losses items on which the contestants differ, wins are binomial with probability 1/2 if they are
    equally good; the mid-p counts the observed outcome itself half.
    """
    if wins == losses:
        return 1.0
    coin = stats.binom(wins + losses, 0.5)
    fewer = min(wins, losses)
    return float(2 * coin.cdf(fewer) - coin.pmf(fewer))


def tango_interval(wins: int, losses: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the difference of paired proportions (Tango 1998, Stat. Med. 17:891-908).

    Holds every difference d at which |wins - losses - n d| <= z sqrt(n (2 q + d (1 - d))), where q is the maximum
    likelihood estimate of the probability of a loss under d.
    """
    difference = (wins - losses) / n
    if wins == losses == 0 or n in (wins, losses):
        return constant_interval(difference, n, (-1.0, 1.0), confidence)
    z = stats.norm.ppf(0.5 + confidence / 2)

    def excess(d: float, sign: int) -> float:
        linear = (2 * n - wins + losses) * d - wins - losses
        root = math.sqrt(max(linear**2 + 8 * n * losses * d * (1 - d), 0.0))
        variance = n * ((root - linear) / (2 * n) + d * (1 - d))
        return float(wins - losses - n * d - sign * z * math.sqrt(max(variance, 0.0)))

    low = optimize.brentq(excess, -1.0, difference, args=(1,))
    high = optimize.brentq(excess, difference, 1.0, args=(-1,))
    return float(low), float(high)


def minimum_detectable_effect(
    n: int, discordance: float = 0.2, confidence: float = 0.95, power: float = POWER
) -> float:
    """Smallest difference of two paired proportions that n items show with the given power.

    (z_confidence + z_power) sqrt(discordance / n), Connor 1987 (Biometrics 43:207-211) to first order. A difference
    cannot exceed the share of items on which the contestants differ, so a discordance too small to carry a
    detectable difference counts as the smallest that can.

    Args:
        n: Independent items.
        discordance: Share of items on which one contestant is right and the other wrong.
        confidence: Level of the verdict.
        power: Probability of seeing the difference.
    """
    if n < 1 or not 0 <= discordance <= 1:
        raise ValueError(f"needs n >= 1 and a discordance between 0 and 1, not n = {n}, discordance = {discordance}")
    reach = float(stats.norm.ppf(0.5 + confidence / 2) + stats.norm.ppf(power))
    return min(1.0, reach * math.sqrt(max(discordance, reach**2 / n) / n))


def constant_interval(value: float, units: int, bounds: tuple[float, float], confidence: float) -> tuple[float, float]:
    """Interval of a mean when every unit gave the same value, so that the sample shows no spread at all.

    At most a share z^2 / (n + z^2) of unseen units differs (Wilson's upper limit for 0 of n), by at most the way to
    the bounds. For proportions this is Wilson's interval at 0 and n, for paired ones Tango's.
    """
    square = float(stats.norm.ppf(0.5 + confidence / 2)) ** 2
    share = square / (units + square)
    return value - share * (value - bounds[0]), value + share * (bounds[1] - value)
