import numpy as np
import pytest

from promptsearch.search.cokriging import link
from promptsearch.search.gaussian_process import Kernel, Process

POOL, LENGTH = 9, 3


def prompts(rng, count):
    return np.unique(rng.integers(POOL, size=(2 * count, LENGTH)), axis=0)[:count]


def drawn(rng, process, rows, vectors):
    """A function of prompts that the process gives rise to."""
    covariance = process.covariance(rows, rows, vectors) + 1e-9 * np.eye(len(rows))
    return np.linalg.cholesky(covariance) @ rng.normal(size=len(rows))


@pytest.fixture
def known():
    """60 prompts with g and f = 0.7 g + delta; f was seen of the first 20, g of the first 40."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(POOL, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cheap = Process(Kernel(0.6, 0.3, 1.0), (0.6, 0.3, 0.1), 1e-8, 40)
    delta = Process(Kernel(0.2, 1.0, 5.0), (0.3, 0.5, 0.2), 1e-8, 20)
    rows = rng.permutation(prompts(rng, 60))
    few = drawn(rng, cheap, rows, vectors)
    return rows, few, 0.7 * few + 0.3 * drawn(rng, delta, rows, vectors), vectors, cheap, delta


def test_both_losses_together_say_the_same_as_one_process_of_both(known):
    """The covariance of g and f at once, Kennedy and O'Hagan's section 2.3, as the oracle."""
    rows, few, whole, vectors, cheap, delta = known
    mean, deviation = cheap.predict(rows[:40], few[:40], rows[40:], vectors)
    found = link(rows[:20], few[:20], whole[:20], vectors, delta)
    centre, scale = few[:40].mean(), few[:40].std()
    mean, deviation = found.predict(rows[40:], centre + scale * mean, scale * deviation, vectors)

    def variance(process, at, values):  # by maximum likelihood, as the processes take it
        apart = values - values.mean()
        return apart @ np.linalg.solve(process.covariance(at, at, vectors), apart) / len(at)

    rho, rest = found.rho, whole[:20] - found.rho * few[:20]
    own = variance(cheap, rows[:40], few[:40]) * cheap.covariance(rows, rows, vectors)
    other = variance(delta, rows[:20], rest) * delta.covariance(rows, rows, vectors)
    seen = np.block(
        [
            [own[:40, :40], rho * own[:40, :20]],
            [rho * own[:20, :40], (rho**2 * own + other)[:20, :20]],
        ]
    )
    cross = np.hstack([rho * own[40:, :40], (rho**2 * own + other)[40:, :20]])
    level = rho * centre + rest.mean()
    told = np.concatenate([few[:40] - centre, whole[:20] - level])
    np.testing.assert_allclose(mean, level + cross @ np.linalg.solve(seen, told), atol=1e-4)
    left = (rho**2 * own + other)[40:, 40:] - cross @ np.linalg.solve(seen, cross.T)
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(left)), atol=1e-4)


def test_what_the_few_examples_leave_out_is_learned_from_tokens():
    """A token is worth more on all examples than the few say: prompts with it are seen through."""
    rng = np.random.default_rng(1)
    rows = prompts(rng, 200)
    few = rng.normal(size=200)
    whole = few + 2.0 * (rows[:, 1] == 4) + 0.1 * rng.normal(size=200)
    found = link(rows[:80], few[:80], whole[:80], np.empty((POOL, 0)))
    mean, deviation = found.predict(rows[80:], few[80:], np.zeros(120), np.empty((POOL, 0)))
    missed, before = whole[80:] - mean, whole[80:] - few[80:]
    assert missed.std() < 0.5 * before.std()
    assert np.mean(np.abs(missed) < 3 * deviation) > 0.95


def test_few_examples_that_speak_against_all_are_not_believed():
    rng = np.random.default_rng(2)
    rows, few = prompts(rng, 30), rng.normal(size=30)
    assert link(rows, few, -few, np.empty((POOL, 0))).rho == 0


def test_losses_that_are_all_the_same_leave_nothing_to_learn():
    rng = np.random.default_rng(3)
    rows = prompts(rng, 10)
    found = link(rows, np.ones(10), np.ones(10), np.empty((POOL, 0)))
    mean, deviation = found.predict(rows, np.ones(10), np.zeros(10), np.empty((POOL, 0)))
    np.testing.assert_allclose(mean, 1)
    assert (deviation < 1e-6).all()
