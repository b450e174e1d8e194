"""The compiled local update against slow loops, and what must not change its bits."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from flq import config
from flq.errors import DataError
from flq.learning.batches import batch_orders
from flq.learning.datasets import load_dataset
from flq.learning.models import build_model, trainable_variables
from flq.learning.partition import partition
from flq.learning.trainer import Trainer, to_samples
from flq.parameters import unflatten
from tests.learning.learners import learner
from tests.oracles import learning_oracle

MLP = "tests.learning.test_trainer:small_mlp"
NO_VALUES = np.zeros(0, np.float32)


def small_mlp(input_shape, num_classes):
    layers = tf.keras.layers
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        layers.Flatten(),
        layers.Dense(7, activation="relu"),
        layers.Dense(num_classes)
    ])


def weights(layout, seed=0):
    """Weights that are nowhere zero, so that a penalty on biases is seen."""
    return np.random.RandomState(seed).uniform(-0.3, 0.3, layout.num_params).astype(np.float32)


def shard(worker, **values):
    """A worker's samples as the model sees them, as lists."""
    dataset = load_dataset("digits")
    own = partition(dataset.y_train, None, config.build(values))[worker]
    return (dataset.x_train[own].reshape(len(own), -1) /
            16.0).tolist(), dataset.y_train[own].tolist()


@pytest.mark.parametrize("l2, l2_biases", [(0.0, False), (0.1, False), (0.1, True)])
@pytest.mark.parametrize("model, shapes", [("softmax", [(64, 10)]), (MLP, [(64, 7), (7, 10)])])
def test_local_steps_agree_with_slow_loops(model, shapes, l2, l2_biases):
    subject = learner(model__name=model, model__l2=l2, model__l2_biases=l2_biases,
                      model__local_steps=3, model__local_lr=0.5)
    params = weights(subject.layout)
    result = subject.local_update(params, NO_VALUES, 1, 4)
    orders, batch = batch_orders(subject.num_samples(1), 32, None, 3, 0, 1, 4)
    update, loss = learning_oracle.local_update(params, shapes, *shard(1),
                                                batches=learning_oracle.cut(orders[0], batch),
                                                lr=0.5, l2=l2, l2_biases=l2_biases)
    np.testing.assert_allclose(result.update, update, rtol=1e-4, atol=1e-6)
    assert result.loss == pytest.approx(loss, rel=1e-5) and result.steps == 3


def test_local_epochs_end_with_a_smaller_batch():
    subject = learner(model__name="softmax", model__local_epochs=2, dataset__batch_size=100,
                      model__local_lr=0.5)
    params = weights(subject.layout)
    result = subject.local_update(params, NO_VALUES, 2, 0)
    orders, batch = batch_orders(subject.num_samples(2), 100, 2, None, 0, 2, 0)
    batches = [piece for row in orders for piece in learning_oracle.cut(row, batch)]
    assert [len(piece) for piece in batches] == [100, 100, 100, 59] * 2
    update, loss = learning_oracle.local_update(params, [(64, 10)], *shard(2), batches=batches,
                                                lr=0.5)
    np.testing.assert_allclose(result.update, update, rtol=1e-4, atol=1e-6)
    assert result.loss == pytest.approx(loss, rel=1e-5) and result.steps == 8


@pytest.mark.parametrize("model", ["softmax", "mlp", "cnn_small"])
def test_one_step_is_the_gradient_bit_for_bit(model):
    subject = learner(model__name=model, model__local_steps=1)
    params, non_trainable = subject.initial()
    update = subject.local_update(params, non_trainable, 0, 3).update
    dataset = load_dataset("digits")
    own = partition(dataset.y_train, None, config.build({}))[0]
    orders, _ = batch_orders(len(own), 32, None, 1, 0, 0, 3)
    batch = own[orders[0]]
    keras_model = build_model(model, (8, 8, 1), 10)
    variables = trainable_variables(keras_model)
    for variable, value in zip(variables, unflatten(params, subject.layout.shapes)):
        variable.assign(value)

    @tf.function
    def gradient(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(y, keras_model(x, training=True)))
        return tape.gradient(loss, variables)

    expected = gradient(tf.constant(dataset.x_train[batch] / np.float32(16)),
                        tf.constant(dataset.y_train[batch]))
    np.testing.assert_array_equal(update, np.concatenate([g.numpy().reshape(-1) for g in expected]))


@pytest.mark.parametrize(
    "values", [{"model.local_steps": 5}, {"model.local_epochs": 2, "dataset.batch_size": 50}])
def test_batches_prepared_ahead_give_the_same_bits(values):
    learner()  # TensorFlow is configured
    settings, dataset = config.build(values), load_dataset("digits")
    model = build_model("cnn_small", (8, 8, 1), 10)
    train = to_samples(dataset.x_train, dataset.y_train, dataset.scale)
    orders, batch = batch_orders(180, settings.dataset.batch_size, settings.model.local_epochs,
                                 settings.model.local_steps, 0, 0, 0)
    steps = settings.model.local_steps or 2 * 4
    results = [
        Trainer(model, train, None, settings,
                pipelined).local_update(weights(learner().layout), NO_VALUES, orders, batch, steps)
        for pipelined in (False, True)
    ]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][2] == results[1][2]


def trainer_of(adjust=None, name="softmax", **values):
    """A trainer on all digits, and the orders of two passes over its first 90."""
    learner()  # TensorFlow is configured
    settings, dataset = config.build(dict({"model.local_lr": 0.5},
                                          **values)), load_dataset("digits")
    model = build_model(name, (8, 8, 1), 10)
    train = to_samples(dataset.x_train, dataset.y_train, dataset.scale)
    return Trainer(model, train, None, settings, False,
                   adjust), np.arange(180, dtype=np.int32).reshape(2, 90) % 90


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("name, shapes", [("softmax", [(64, 10)]), (MLP, [(64, 7), (7, 10)])])
def test_another_local_objective_is_one_function(name, shapes, halved):
    """FedProx through the seam: g + mu (w - w_0), against a slow loop."""
    trainer, orders = trainer_of(lambda gradient, w, w_0: gradient + 0.7 * (w - w_0), name,
                                 **{"model.l2": 0.1})
    trainer._halved = halved
    trainer._local_update = trainer._trace_local_update()
    params = np.random.RandomState(0).uniform(
        -0.3, 0.3, sum((inputs + 1) * outputs for inputs, outputs in shapes)).astype(np.float32)
    dataset = load_dataset("digits")
    xs, ys = (dataset.x_train[:90].reshape(90, -1) / 16.0).tolist(), dataset.y_train[:90].tolist()
    batches = [piece for row in orders for piece in learning_oracle.cut(row, 40)]
    update, _, loss = trainer.local_update(params, NO_VALUES, orders, 40, 6)
    slow, slow_loss = learning_oracle.local_update(params, shapes, xs, ys, batches, 0.5, l2=0.1,
                                                   mu=0.7)
    np.testing.assert_allclose(update, slow, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(slow_loss, rel=1e-5)
    plain, _ = learning_oracle.local_update(params, shapes, xs, ys, batches, 0.5, l2=0.1)
    assert np.abs(np.array(slow) - plain).max() > 0.01


def test_the_first_step_is_where_it_started():
    trainer, orders = trainer_of(lambda gradient, w, w_0: w - w_0)
    params = np.random.RandomState(0).uniform(-0.3, 0.3, 650).astype(np.float32)
    np.testing.assert_array_equal(
        trainer.local_update(params, NO_VALUES, orders, 40, 1)[0], np.zeros(650, np.float32))


def test_without_such_a_function_nothing_of_it_is_in_the_graph():
    """w_0 is cut out of the vector a second time only where a function asks for it; its result is
    taken as it is.
    """
    (default, orders), (identity, _) = trainer_of(), trainer_of(lambda gradient, w, w_0: gradient)
    cuts = [[operation.type
             for operation in trainer._local_update.graph.get_operations()].count("SplitV")
            for trainer in (default, identity)]
    assert cuts == [1, 2]
    params = np.random.RandomState(0).uniform(-0.3, 0.3, 650).astype(np.float32)
    results = [
        trainer.local_update(params, NO_VALUES, orders, 40, 6) for trainer in (default, identity)
    ]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][2] == results[1][2]


def test_evaluation_counts_the_whole_test_set():
    subject = learner(model__name="softmax")
    params = weights(subject.layout)
    dataset = load_dataset("digits")
    xs, ys = (dataset.x_test.reshape(360, -1) / 16.0).tolist(), dataset.y_test.tolist()
    layers = learning_oracle.unflat(params.tolist(), [(64, 10)])
    loss, _ = learning_oracle.loss_and_gradients(layers, xs, ys)
    hits = sum(int(np.argmax(learning_oracle.dense(x, *layers[0]))) == y for x, y in zip(xs, ys))
    evaluation = subject.evaluate(params, NO_VALUES)
    assert evaluation.accuracy == hits / 360 and evaluation.samples == 360
    assert evaluation.loss == pytest.approx(loss, rel=1e-6)


def test_moving_statistics_start_from_the_broadcast_and_travel_back():
    subject = learner(model__name="examples.custom_model:build", model__local_steps=2)
    params, non_trainable = subject.initial()
    assert non_trainable.tolist() == [0.0] * 8 + [1.0] * 8
    result = subject.local_update(params, non_trainable, 0, 0)
    assert result.non_trainable.shape == (16,) and (result.non_trainable != non_trainable).all()
    again = subject.local_update(params, non_trainable, 0, 0)
    np.testing.assert_array_equal(result.non_trainable, again.non_trainable)
    assert subject.evaluate(params, non_trainable) != subject.evaluate(params, result.non_trainable)
    assert subject.evaluate(params, non_trainable) == subject.evaluate(params, non_trainable)


def regularised(input_shape, num_classes):
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(num_classes, kernel_regularizer=tf.keras.regularizers.L2(0.05))
    ])


def test_a_models_own_regulariser_counts():
    """Keras's L2(c) is c ||w||^2, half of it l2/2 ||w||^2 with l2 = 2 c."""
    own = learner(model__name="tests.learning.test_trainer:regularised", model__local_steps=2)
    ours = learner(model__name="softmax", model__l2=0.1, model__local_steps=2)
    params = weights(ours.layout)
    np.testing.assert_allclose(
        own.local_update(params, NO_VALUES, 0, 0).update,
        ours.local_update(params, NO_VALUES, 0, 0).update, rtol=1e-4, atol=1e-6)


def test_a_diverged_model_gives_a_non_finite_update_and_no_exception():
    subject = learner(model__name="softmax")
    result = subject.local_update(np.full(subject.layout.num_params, np.inf, np.float32), NO_VALUES,
                                  0, 0)
    assert not np.isfinite(result.update).all()


@pytest.fixture
def mixed_precision():
    yield functools.partial(learner, jetson_optimization__enable_mixed_precision=True)
    tf.keras.mixed_precision.set_global_policy("float32")


def test_mixed_precision_stays_near_float32(mixed_precision):
    values = {"model__name": "softmax", "model__local_steps": 3}
    full = learner(**values)
    params = weights(full.layout)
    result, expected = (subject.local_update(params, NO_VALUES, 0, 0)
                        for subject in (mixed_precision(**values), full))
    assert result.update.dtype == np.float32
    assert (result.update != expected.update).any()
    assert np.linalg.norm(result.update - expected.update) < 0.01 * np.linalg.norm(expected.update)
    assert result.loss == pytest.approx(expected.loss, rel=0.01)


def loud_digits():
    """Pixels of 0..16 as they are: gradients that 2^15 scales beyond the largest float16, 65,504.
    """
    dataset = load_dataset("digits")
    return {"x_train": dataset.x_train.astype(np.float32), "y_train": dataset.y_train,
            "x_test": dataset.x_test.astype(np.float32), "y_test": dataset.y_test}


def test_mixed_precision_halves_the_loss_scale_where_float16_overflows(mixed_precision):
    values = {"model__name": "softmax", "model__local_steps": 3, "model__local_lr": 0.001,
              "dataset__name": "tests.learning.test_trainer:loud_digits"}
    full = learner(**values)
    params = np.zeros(full.layout.num_params, np.float32)
    params[-1] = 40.0  # the bias of class 9: wrong with confidence
    result, expected = (subject.local_update(params, NO_VALUES, 0, 0)
                        for subject in (mixed_precision(**values), full))
    assert np.abs(expected.update).max() * 2 ** 15 > 65504
    assert np.isfinite(result.update).all()
    assert np.linalg.norm(result.update - expected.update) < 0.01 * np.linalg.norm(expected.update)


@pytest.mark.parametrize("values", [
    {"model__local_steps": 3, "model__local_lr": 0.5, "model__l2": 0.1},
    # 359 samples: the last batch, of 18, is 16 and 2
    {"model__local_epochs": 1, "dataset__batch_size": 31}])
def test_a_device_without_memory_for_a_batch_gets_it_in_halves(caplog, values):
    whole = learner(model__name="softmax", **values)
    halves = learner(model__name="tests.learning.small_memory:room_for_16", **values)
    params = weights(whole.layout)
    expected = whole.local_update(params, NO_VALUES, 1, 4)
    for _ in range(2):  # the second time it knows
        result = halves.local_update(params, NO_VALUES, 1, 4)
        np.testing.assert_allclose(result.update, expected.update, rtol=1e-4, atol=1e-6)
        assert result.loss == pytest.approx(expected.loss,
                                            rel=1e-5) and result.steps == expected.steps
    assert [
        record.getMessage().split(":")[0] for record in caplog.records
        if record.name == "flq.learning"
    ] == [f"out of memory with batches of {values.get('dataset__batch_size', 32)}"]


def test_halves_with_mixed_precision(mixed_precision):
    expected = learner(model__name="softmax").local_update(
        weights(learner(model__name="softmax").layout), NO_VALUES, 0, 0)
    halves = mixed_precision(model__name="tests.learning.small_memory:room_for_16")
    result = halves.local_update(weights(halves.layout), NO_VALUES, 0, 0)
    assert np.linalg.norm(result.update - expected.update) < 0.01 * np.linalg.norm(expected.update)


@pytest.mark.parametrize("model, batch, samples", [("room_for_15", 32, 16), ("room_for_0", 1, 1)])
def test_memory_for_no_half_either_is_one_line(model, batch, samples):
    subject = learner(model__name="tests.learning.small_memory:" + model, dataset__batch_size=batch)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            subject.local_update(weights(subject.layout), NO_VALUES, 0, 0)
        assert f"out of memory with {samples} samples at a time" in str(
            caught.value) and "\n" not in str(caught.value)
        assert "lower dataset.batch_size" in str(caught.value)
