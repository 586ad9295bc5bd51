"""What the tables of wrong calls are made of."""

from tests.contract import fits

NAN, INF = float("nan"), float("inf")


def fit(callback, make=fits.of_models, **options):
    """A fit that must not begin."""
    made = make()
    x, y = fits.data()
    made.fit(x, y, **{"callbacks": [callback], "epochs": 3, "verbose": 0, **options})


def argument(name, expected, received=None):
    """The pattern of the message of a wrong argument."""
    received = "" if received is None else received
    return rf"argument `{name}`.* Expected {expected}.* Received: .*{received}"


def values(subject, name, expected, wrong, **others):
    """Rows of one argument: each of the wrong values is refused."""
    called = f"{subject.__name__}({name}={{}})"
    return {
        called.format(_named(value)): (
            lambda value=value: subject(**{**others, name: value}),
            argument(name, expected),
        )
        for value in wrong
    }


def _named(value):
    """Addresses and counted names would make other names of tests in each process."""
    return f"a {type(value).__name__}" if "<" in repr(value) else repr(value)


ENDS = {"start": 1.0, "end": 2.0}
X, Y = fits.data()
