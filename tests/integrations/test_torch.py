"""A PyTorch model at FLQ's door, and the examples of other frameworks beside it."""

import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here, "
                            "tests/integrations/run.sh torch makes an environment with it")

from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import flq  # noqa: E402
from flq.errors import DataError  # noqa: E402
from flq.integrations.torch import TorchLearner  # noqa: E402
from tests.system.conftest import own_site  # noqa: E402, F401
from tests.system.processes import ROOT, Master  # noqa: E402

PYTORCH = ROOT / "examples" / "pytorch_worker.py"
SKLEARN = ROOT / "examples" / "sklearn_worker.py"
JAX = ROOT / "examples" / "jax_learner.py"


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(),
                               torch.nn.Linear(4, 2))


def loader(seed=0, samples=20):
    random = np.random.RandomState(seed)
    x = random.standard_normal((samples, 3)).astype(np.float32)
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy((x[:, 0] > 0) * 1)), 5)


def learner(worker=0, **options):
    return TorchLearner(model(), loader(worker), loader(9), **options)


def test_its_weights_are_what_is_trained_and_then_what_moves():
    made = learner()
    shapes = [tensor.shape for tensor in made.weights()]
    assert shapes == [(4, 3), (4,), (4,), (4,), (2, 4), (2,), (4,), (4,)]
    assert made.num_moving == 2 and made.num_samples() == 20
    frozen = model()
    frozen[0].weight.requires_grad = False
    assert [tensor.shape for tensor in TorchLearner(frozen).weights()] == shapes[1:]


def test_a_round_is_a_function_of_the_model_that_came():
    made = learner(optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1, 0.9))
    start = [tensor.copy() for tensor in made.weights()]
    first, loss = made.train([tensor.copy() for tensor in start], 0)
    again, same = made.train([tensor.copy() for tensor in start], 1)
    assert loss == same and all((left == right).all() for left, right in zip(first, again))
    assert any((left != right).any() for left, right in zip(first, start))
    assert (first[-1] != start[-1]).any(), "the moving variance"


def test_it_trains_as_many_batches_as_were_asked_for():
    seen = []

    def loss(outputs, targets):
        seen.append(len(targets))
        return torch.nn.functional.cross_entropy(outputs, targets)

    for steps, batches in ((None, 4), (1, 1), (6, 6)):
        del seen[:]
        made = learner(loss=loss, local_steps=steps)
        made.train(made.weights(), 0)
        assert len(seen) == batches


def test_it_tests_over_all_samples_whatever_the_batches():
    made = learner()
    accuracy, loss, samples = made.evaluate(made.weights())
    made._test = DataLoader(loader(9).dataset, 20)
    assert samples == 20 and made.evaluate(made.weights())[0] == accuracy
    assert made.evaluate(made.weights())[1] == pytest.approx(loss)


def test_a_loader_that_is_needed_and_not_there_is_named():
    made = TorchLearner(model())
    for call, name in ((made.num_samples, "train"), (lambda: made.evaluate(made.weights()), "test"),
                       (lambda: made.train(made.weights(), 0), "train")):
        with pytest.raises(DataError, match=f"made without a {name} loader"):
            call()


def test_float64_weights_are_refused_in_one_line():
    with pytest.raises(DataError, match="weights gave nothing that FLQ can send; expected float32"):
        flq.simulate(learners=[TorchLearner(model().double(), loader(), loader())])


@pytest.mark.parametrize("mode", ["laq", "bin", "fedavg"])
def test_a_whole_run_without_tensorflow(mode):
    result = flq.simulate(learners=[learner(worker) for worker in range(3)], mode=mode,
                          max_rounds=4)
    again = flq.simulate(learners=[learner(worker) for worker in range(3)], mode=mode, max_rounds=4)
    assert result.rounds.params_hash.tolist() == again.rounds.params_hash.tolist()
    assert len(set(result.rounds.params_hash)) == 4 and "tensorflow" not in sys.modules


def test_tensors_are_quantised_without_a_copy():
    weights = torch.linspace(-1, 1, 600).reshape(20, 30)
    sent = flq.quantize(weights, "bbit", bits=4)
    assert sent.data == flq.quantize(weights.numpy(), "bbit", bits=4).data
    assert flq.quantize(list(model().parameters()), "rd").data == flq.quantize(
        [tensor.detach().numpy() for tensor in model().parameters()], "rd").data
    from flq.api.quantizing import _checked
    assert np.shares_memory(_checked(weights, "values"), weights.numpy())
    with pytest.raises(DataError, match="expected float32 or float64; got float16"):
        flq.quantize(weights.half())


def _run(site, program, *settings):  # noqa: F811
    """A master and two workers of an example, on a port of its own; returns the run's summary."""
    # The example names no port: here several run at the same time.
    start = ("import sys, runpy, flq.master as m; serve = m.serve; m.serve = lambda *a, **k: "
             "serve(*a, **dict(k, port=0, port_file='master.port', run_dir='master-run', "
             "exit_when_done=True, save_results=False)); sys.argv = sys.argv[1:]; "
             "runpy.run_path(sys.argv[0], run_name='__main__')")
    master = site.start("master", sys.executable, "-c", start, program, "master", kind=Master)
    worker = ("import sys, runpy, flq.worker as w; run = w.run; url = sys.argv.pop(); "
              "w.run = lambda *a: run(*a[:2], url); sys.argv = sys.argv[1:]; "
              "runpy.run_path(sys.argv[0], run_name='__main__')")
    workers = [site.start(f"worker-{number}", sys.executable, "-c", worker, program, "worker",
                          number, master.url) for number in range(2)]
    assert [one.wait() for one in [*workers, master]] == [0, 0, 0]
    return json.loads((master.run_dir / "summary.json").read_text())


def test_the_pytorch_example_trains_over_http(own_site):  # noqa: F811
    summary = _run(own_site, PYTORCH)
    assert summary["rounds"] == 20 and summary["uploads"] == 40 and summary["accuracy"] > 0.9
    assert summary["bits"]["up"]["payload"] < summary["bits"]["up"]["float32"] / 7


def test_the_scikit_learn_example_trains_over_http(own_site):  # noqa: F811
    pytest.importorskip("sklearn", reason="scikit-learn is not installed here")
    summary = _run(own_site, SKLEARN)
    assert summary["rounds"] == 10 and summary["accuracy"] > 0.85


def test_the_jax_example_trains_in_one_process(own_site):  # noqa: F811
    pytest.importorskip("jax", reason="jax is not installed here")
    run = own_site.start("jax", sys.executable, JAX)
    assert run.wait() == 0
    assert run.text().splitlines()[-1].startswith("Result(mode rd, 20 rounds, accuracy 9")
