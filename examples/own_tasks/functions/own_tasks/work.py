"""The tasks' code. Imported when the first of them runs."""

from math import isqrt

from nexus import Continuation, Run, implements, implements_part
from own_tasks import catalogue
from own_tasks.catalogue import Answer, CountPrimes, IsPrime, Primes, Range

NUMBERS_A_SEGMENT = 100_000


@implements(catalogue.is_prime)
def is_prime(args: IsPrime, _run: Run) -> Answer:
    """Trial division: at most half a million divisions for a million million."""
    factor = next((n for n in (2, *range(3, isqrt(args.number) + 1, 2)) if args.number % n == 0), None)
    if factor is None or factor == args.number:
        return Answer(number=args.number, prime=True)
    return Answer(number=args.number, prime=False, smallest_factor=factor)


@implements(catalogue.count_primes)
def count_primes(args: CountPrimes, run: Run) -> Primes | Continuation:
    """Splits the numbers into segments."""
    firsts = range(2, args.below, NUMBERS_A_SEGMENT)
    if len(firsts) == 0:
        return Primes(primes=0)
    return run.fan_out([Range(first=first, end=min(first + NUMBERS_A_SEGMENT, args.below)) for first in firsts])


@implements_part(catalogue.count_primes)
def count_range(args: Range, _run: Run) -> Primes:
    """A sieve over one segment."""
    small = [n for n in range(2, isqrt(args.end) + 1) if all(n % d for d in range(2, isqrt(n) + 1))]
    sieve = bytearray([1]) * (args.end - args.first)
    for prime in small:
        start = max(prime * prime, -(-args.first // prime) * prime)
        sieve[start - args.first :: prime] = bytes(len(range(start, args.end, prime)))
    return Primes(primes=sum(sieve))
