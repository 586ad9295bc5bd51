"""Several servers as one, with a clock that moves only where the servers or the waiting move it."""

import random

import numpy as np
import pytest

from keras_kd.runtimes.tensors import TensorInfo
from keras_kd.teachers.served import errors
from keras_kd.teachers.served.circuit import Circuit
from keras_kd.teachers.served.description import Answer, ModelDescription
from keras_kd.teachers.served.fleet import Fleet, Patience
from keras_kd.teachers.served.server import Server

DESCRIPTION = ModelDescription(
    "m", "1", (TensorInfo("x", (None, 2), "float32"),), (TensorInfo("y", (None, 2), "float32"),)
)
ARRAYS = {"x": np.ones((3, 2), "float32")}


class Clock:
    def __init__(self):
        self.now, self.sleeps = 1000.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


class Client:
    """Doubles; each request takes a second, or fails as `failure` says."""

    def __init__(self, clock):
        self.clock, self.failure, self.factor = clock, None, 2.0
        self.asked, self.described, self.timeouts, self.connections = 0, 0, [], 0

    def describe(self, timeout):
        self.described += 1
        self._fail()
        return DESCRIPTION

    def predict(self, arrays, description, names, timeout):
        self.asked += 1
        self.timeouts.append(timeout)
        self.clock.now += 1.0
        self._fail()
        return Answer({"y": arrays["x"] * self.factor}, "m", "1")

    def _fail(self):
        if self.failure is not None:
            raise self.failure

    def close(self):
        pass


@pytest.fixture
def clock():
    return Clock()


def fleet(clock, count=2, failures=3, pause=10.0, connects=True, **patience):
    patience = {"timeout": 5.0, "give_up_after": 100.0, "in_flight": 4, **patience}
    clients = [Client(clock) for _ in range(count)]
    servers = [
        Server(f"http://{i}", client, Circuit(failures, pause, clock), clock)
        for i, client in enumerate(clients)
    ]
    made = Fleet(
        servers, Patience(**patience), 1e-3, "t", clock, clock.sleep, random.Random(1)
    )  # fmt: skip
    if connects:
        made.connect()
        for _ in clients:
            # The first answer of each is checked: there was no connection before.
            made.ask(ARRAYS, ["y"])
        for client in clients:
            client.asked = client.described = 0
        clock.sleeps.clear()
    return made, clients


def ask(made):
    np.testing.assert_array_equal(made.ask(ARRAYS, ["y"])["y"], 2 * ARRAYS["x"])


DOWN = errors.Unavailable("no connection")


def test_servers_take_turns(clock):
    made, clients = fleet(clock, 3)
    for _ in range(9):
        ask(made)
    assert [client.asked for client in clients] == [3, 3, 3]
    assert clock.sleeps == []


def test_pauses_between_tries_double_up_to_two_seconds_with_jitter(clock):
    made, clients = fleet(clock, 1, failures=1000)
    clients[0].failure = DOWN
    with pytest.raises(errors.ServedTeacherError):
        made.ask(ARRAYS, ["y"])
    longest = [min(0.05 * 2**i, 2.0) for i in range(len(clock.sleeps))]
    shares = [a / b for a, b in zip(clock.sleeps, longest, strict=True)]
    assert all(0.5 <= share <= 1.0 for share in shares[:-1])
    assert len(set(np.round(shares, 3))) > 5


def test_it_gives_up_after_the_stated_time(clock):
    made, clients = fleet(clock, give_up_after=60.0)
    for client in clients:
        client.failure = DOWN
    begin = clock.now
    message = r"for 60 s(.|\n)*http://0: no connection \(\d+ s ago, \d+ f(.|\n)*http://1: no conn"
    with pytest.raises(errors.ServedTeacherError, match=message):
        made.ask(ARRAYS, ["y"])
    assert 59.0 <= clock.now - begin <= 62.0


def test_a_circuit_opens_and_a_trial_closes_it(clock):
    made, (one, _) = fleet(clock)
    one.failure = DOWN
    for _ in range(3):
        ask(made)
    # Two of the three began at the other one, or had failed at this one before.
    while made.statistics()["servers"]["http://0"]["circuit"] == "closed":
        ask(made)
    asked = one.asked + one.described
    for _ in range(5):
        ask(made)
    assert one.asked + one.described == asked
    clock.now += 10.0  # the pause
    ask(made)
    ask(made)
    assert one.described > 0  # one trial, which failed
    tried = one.described
    clock.now += 10.0  # the pause has doubled
    for _ in range(4):
        ask(made)
    assert one.described == tried
    one.failure = None
    clock.now += 10.0
    for _ in range(4):
        ask(made)
    statistics = made.statistics()["servers"]["http://0"]
    assert statistics["circuit"] == "closed"
    assert statistics["circuit_openings"] == 2
    assert one.asked > asked


def test_a_server_that_comes_back_with_other_numbers_is_left_out(clock):
    made, (one, _) = fleet(clock)
    one.failure = DOWN
    for _ in range(8):
        ask(made)
    one.failure, one.factor = None, 3.0
    clock.now += 1000.0
    for _ in range(8):
        ask(made)
    statistics = made.statistics()["servers"]["http://0"]
    assert statistics["circuit"] != "closed"
    assert (
        "gives other numbers: for the probe batch they are off by 0.5"
        in (statistics["last_failure"])
    )


@pytest.mark.parametrize("how", ["new connection", "time", "one failure"])
def test_a_model_that_was_replaced_is_noticed_without_an_open_circuit(clock, how):
    made, (one, _) = fleet(clock)
    if how == "one failure":
        one.failure = DOWN
        ask(made)
        ask(made)
        one.failure = None
    one.factor = 3.0
    if how == "new connection":
        one.connections += 1
    elif how == "time":
        clock.now += 31.0
    for _ in range(6):
        ask(made)
    assert "gives other numbers" in made.statistics()["servers"]["http://0"]["last_failure"]


def test_the_last_request_gets_the_time_that_is_left(clock):
    made, clients = fleet(clock, 1, failures=1000, timeout=50.0, give_up_after=8.0)
    clients[0].failure = DOWN
    clients[0].timeouts.clear()
    with pytest.raises(errors.ServedTeacherError):
        made.ask(ARRAYS, ["y"])
    assert max(clients[0].timeouts, default=0.0) <= 8.0


def test_a_request_that_all_refuse_twice_is_an_error_at_once(clock):
    made, clients = fleet(clock)
    begin = clock.now

    def refused(arrays, description, names, timeout):
        if len(arrays["x"]) == 3:
            raise errors.Rejected("HTTP 400: too long")
        return Answer({"y": arrays["x"] * 2.0}, "m", "1")

    for client in clients:
        client.predict = refused
    with pytest.raises(errors.ServedTeacherError, match="Every server(.|\n)*HTTP 400: too long"):
        made.ask(ARRAYS, ["y"])
    assert clock.now - begin < 5.0
    assert all(each["circuit"] == "closed" for each in made.statistics()["servers"].values())


def test_a_model_that_is_still_being_loaded_is_waited_for(clock):
    made, clients = fleet(clock, 1, give_up_after=100.0)
    clients[0].failure = errors.Rejected("HTTP 404: model m not found")
    sleeps = []

    def sleep(seconds):
        sleeps.append(seconds)
        clock.now += seconds
        if clock.now > 1030.0:
            clients[0].failure = None

    made._sleep = sleep
    ask(made)
    assert len(sleeps) > 3


def test_at_first_servers_that_are_away_get_three_tries(clock):
    made, (one, two) = fleet(clock, connects=False)
    two.failure = DOWN
    with pytest.warns(UserWarning, match=r"1 of 2 servers of 't' do not answer: http://1: no conn"):
        made.connect()
    assert (one.described, two.described) == (1, 3)
