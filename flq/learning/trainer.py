"""The compiled local update and evaluation of one model, on flat vectors.

Imported only after device.configure: importing TensorFlow here is what learner puts off.
"""

import logging
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from flq.errors import DataError
from flq.learning.models import (
    constant_variables,
    layout_of,
    non_trainable_variables,
    trainable_variables,
)
from flq.records import Evaluation
from flq.settings import Config

_TEST_BATCH = 256
_FIRST_LOSS_SCALE = 2.0 ** 15
_CPU = "CPU:0"

Adjust = Callable[[Any, Any, Any], Any]
"""adjust(gradient, w, w_0) -> gradient: what one local step follows, of one of the model's tensors,
float32. gradient: that of the batch at w, with its penalties. w_0: where the round's steps began.
FedProx is such a function: gradient + mu (w - w_0) (Li 2020)."""

_log = logging.getLogger("flq.learning")


class Samples(NamedTuple):
    """Samples as tensors on the host: x in its stored dtype [n, ...], y int32[n]; the model sees
    float32(x) / scale.
    """

    x: Any
    y: Any
    scale: float


def to_samples(x: np.ndarray, y: np.ndarray, scale: float) -> Samples:
    """NumPy arrays -> Samples in the machine's memory, also where there is a GPU."""
    with tf.device(_CPU):
        # Not tf.constant: it leaves a second copy of the array in memory.
        return Samples(tf.identity(x), tf.identity(y), scale)


class Trainer(object):
    """One replica of a model with its local update and its evaluation, each one compiled graph,
    traced here.

    train, test: the samples to learn from and to test on, or None for what is not needed.
    pipelined: let tf.data prepare the batches ahead, which pays where the next batch can be copied
    to a GPU while this one is computed. On a CPU there is nothing to overlap, and making an
    iterator costs more than small batches take: 0.5 ms against 6 to 14 ms a round. Both give the
    same bits. adjust: another local objective than the mean loss; without one nothing of it is in
    the graph. Not thread-safe: the model's variables hold the state of the call.

    A trainer whose device runs out of memory computes every batch in two halves from then on and
    adds their gradients up, (n_1 g_1 + n_2 g_2) / (n_1 + n_2): the same update but for the last
    bits of its sums. A layer that looks at the whole batch, such as batch normalisation, sees
    halves.
    """

    def __init__(self, model: Any, train: Optional[Samples], test: Optional[Samples],
                 config: Config, pipelined: bool, adjust: Optional[Adjust] = None) -> None:
        self._model = model
        self._variables = trainable_variables(model)
        self._non_trainable_variables = non_trainable_variables(model)
        self._constant_variables = constant_variables(model)
        self._config = config
        self._pipelined = pipelined
        self._adjust = adjust
        layout = layout_of(model)
        vectors = [
            tf.TensorSpec([layout.num_params], tf.float32),
            tf.TensorSpec([layout.num_non_trainable], tf.float32)
        ]
        self._halved = False
        if train is not None:
            self._train = train
            scalar = tf.TensorSpec([], tf.int32)
            self._update_inputs = vectors + [tf.TensorSpec([None, None], tf.int32), scalar, scalar]
            self._local_update = self._trace_local_update()
        if test is not None:
            self._test = test
            self._evaluate = tf.function(self._evaluate_graph,
                                         autograph=False).get_concrete_function(*vectors)

    @property
    def constants(self) -> np.ndarray:
        """The values of the model's frozen layers as they are now, float32."""
        return _concat(self._constant_variables).numpy()

    def set_constants(self, values: np.ndarray) -> None:
        """Give the frozen layers these values, float32; updates and tests leave them as they are.
        """
        _split_into(tf.convert_to_tensor(values), self._constant_variables)

    def weights(self, params: np.ndarray, non_trainable: np.ndarray) -> List[np.ndarray]:
        """What the model's get_weights() gives with these values: all of its weights, in Keras's
        order.
        """
        self._assign(tf.convert_to_tensor(params), tf.convert_to_tensor(non_trainable))
        weights: List[np.ndarray] = self._model.get_weights()
        return weights

    def local_update(self, params: np.ndarray, non_trainable: np.ndarray, orders: np.ndarray,
                     batch: int, steps: int) -> Tuple[np.ndarray, np.ndarray, float]:
        """Mean gradient on the path of `steps` SGD steps from params: update float32[p], the
        non-trainable values after it float32[N], mean loss.

        With w_0 = params: g_i = grad of the mean softmax cross-entropy of batch i at w_i, plus l2
        w_i where it counts, adjusted where that was asked for; w_{i+1} = w_i - local_lr g_i; update
        = (g_0 + g_1 + ...) / steps, which for one step is g_0, bit for bit. orders: int32[passes,
        length] of positions in the training samples, cut into batches (batches.py).
        Raises DataError where there is not memory enough for half a batch either.
        """
        try:
            return self._try_local_update(params, non_trainable, orders, batch, steps)
        except tf.errors.ResourceExhaustedError as error:
            if self._halved or batch < 2:
                raise _out_of_memory((batch + 1) // 2 if self._halved else batch, error)
        _log.warning(
            "out of memory with batches of %d: each is computed in two halves from now on, which "
            "gives the same update",
            batch)
        self._halved = True
        self._local_update = self._trace_local_update()
        return self.local_update(params, non_trainable, orders, batch, steps)

    def _try_local_update(self, params: np.ndarray, non_trainable: np.ndarray, orders: np.ndarray,
                          batch: int, steps: int) -> Tuple[np.ndarray, np.ndarray, float]:
        update, new_values, loss = self._local_update(tf.convert_to_tensor(params),
                                                      tf.convert_to_tensor(non_trainable),
                                                      tf.convert_to_tensor(orders),
                                                      tf.constant(batch), tf.constant(steps))
        return update.numpy(), new_values.numpy(), float(loss)

    def _trace_local_update(self) -> Any:
        return tf.function(self._local_update_graph,
                           autograph=False).get_concrete_function(*self._update_inputs)

    def evaluate(self, params: np.ndarray, non_trainable: np.ndarray) -> Evaluation:
        """Accuracy and mean cross-entropy on the whole test set, summed in float64."""
        correct, loss = self._evaluate(tf.convert_to_tensor(params),
                                       tf.convert_to_tensor(non_trainable))
        samples = self._test.y.shape[0]
        return Evaluation(int(correct) / samples, float(loss) / samples, samples)

    def _local_update_graph(self, params: Any, non_trainable: Any, orders: Any, batch: Any,
                            steps: Any) -> Tuple[Any, Any, Any]:
        self._assign(params, non_trainable)
        next_batch = self._batches(orders, batch, steps)
        most = (batch + 1) // 2 if self._halved else None
        start_weights = [] if self._adjust is None else list(_split(params, self._variables))

        def step(i: Any, loss_scale: Any, loss_sum: Any, *sums: Any) -> List[Any]:
            x, y = next_batch(i)
            loss_scale, loss, gradients = self._step_gradients(x, y, most, loss_scale)
            if self._adjust is not None:
                gradients = [self._adjust(gradient, tf.convert_to_tensor(w), w_0)
                             for gradient, w, w_0 in zip(gradients, self._variables, start_weights)]
            for variable, gradient in zip(self._variables, gradients):
                variable.assign_sub(self._config.model.local_lr * gradient)
            return [i + 1, loss_scale, loss_sum + loss
                    ] + [total + gradient for total, gradient in zip(sums, gradients)]

        start = [tf.constant(0), tf.constant(_FIRST_LOSS_SCALE), tf.constant(0.0)] + self._zeros()
        _, _, loss_sum, *sums = tf.while_loop(lambda i, *_: i < steps, step, start,
                                              parallel_iterations=1)
        count = tf.cast(steps, tf.float32)
        return _concat(sums) / count, _concat(self._non_trainable_variables), loss_sum / count

    def _batches(self, orders: Any, batch: Any, steps: Any) -> Any:
        """A function that gives the x, y of step i; to be called for i = 0, 1, ... in turn."""
        per_pass = (tf.shape(orders)[1] + batch - 1) // batch

        def gather(i: Any) -> Tuple[Any, Any]:
            first = i % per_pass * batch
            indices = orders[i // per_pass, first:first + batch]
            with tf.device(_CPU):  # only the batch travels to a GPU, never the data set
                return _scaled(tf.gather(self._train.x, indices),
                               self._train.scale), tf.gather(self._train.y, indices)

        if not self._pipelined:
            return gather
        section = self._config.jetson_optimization
        numbers = tf.data.Dataset.range(tf.cast(steps,
                                                tf.int64)).map(lambda i: tf.cast(i, tf.int32))
        iterator = iter(
            numbers.map(gather, num_parallel_calls=section.num_parallel_calls).prefetch(
                section.prefetch_size))
        return lambda i: next(iterator)

    def _step_gradients(self, x: Any, y: Any, most: Any,
                        loss_scale: Any) -> Tuple[Any, Any, List[Any]]:
        """Loss scale for the next step, loss and gradients of this one.

        In float16 small gradients vanish and large ones overflow, so the loss is scaled up and the
        gradients down again; the scale is halved and the step tried again until they are finite or
        it is 1 (Micikevicius 2018).
        """
        if not self._config.jetson_optimization.enable_mixed_precision:
            return (loss_scale,) + self._batch_gradients(x, y, most, None)

        def attempt(scale: Any, done: Any, loss: Any, *gradients: Any) -> List[Any]:
            new_loss, new_gradients = self._batch_gradients(x, y, most, scale)
            finite = tf.reduce_all(
                [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in new_gradients])
            done = finite | (scale <= 1.0)
            return [tf.where(done, scale, scale / 2.0), done, new_loss] + new_gradients

        start = [loss_scale, tf.constant(False), tf.constant(0.0)] + self._zeros()
        loss_scale, _, loss, *gradients = tf.while_loop(lambda scale, done, *_: ~done, attempt,
                                                        start, parallel_iterations=1)
        return loss_scale, loss, gradients

    def _batch_gradients(self, x: Any, y: Any, most: Any, loss_scale: Any) -> Tuple[Any, List[Any]]:
        """Mean cross-entropy of one batch, and the gradients of it, the L2 penalty and the model's
        own regularisers.

        most: how many samples are computed at a time, None for all.
        """
        loss, gradients = self._gradients(
            x, y, loss_scale) if most is None else self._gradients_in_pieces(
                x, y, most, loss_scale)
        model = self._config.model
        for k, variable in enumerate(self._variables):
            if model.l2 > 0 and (model.l2_biases or len(variable.shape) >= 2):
                gradients[k] += model.l2 * variable
        return loss, gradients

    def _gradients_in_pieces(self, x: Any, y: Any, most: Any,
                             loss_scale: Any) -> Tuple[Any, List[Any]]:
        """What _gradients gives, summed over consecutive pieces of the batch, each weighted by its
        share of the samples.
        """
        samples = tf.shape(y)[0]

        def add_piece(start: Any, loss: Any, *sums: Any) -> List[Any]:
            with tf.device(_CPU):  # only the piece travels to a GPU
                piece_x, piece_y = x[start:start + most], y[start:start + most]
            share = tf.cast(tf.shape(piece_y)[0], tf.float32) / tf.cast(samples, tf.float32)
            piece_loss, gradients = self._gradients(piece_x, piece_y, loss_scale)
            return [start + most, loss + share * piece_loss
                    ] + [total + share * gradient for total, gradient in zip(sums, gradients)]

        start = [tf.constant(0), tf.constant(0.0)] + self._zeros()
        _, loss, *gradients = tf.while_loop(lambda start, *_: start < samples, add_piece, start,
                                            parallel_iterations=1)
        return loss, gradients

    def _gradients(self, x: Any, y: Any, loss_scale: Any) -> Tuple[Any, List[Any]]:
        """Mean cross-entropy of the samples, and the gradients of it and of the model's own
        regularisers.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            logits = tf.cast(self._model(x, training=True), tf.float32)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
            objective = tf.add_n([loss] + list(self._model.losses))
            if loss_scale is not None:
                objective *= loss_scale
        gradients = tape.gradient(objective, self._variables,
                                  unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if loss_scale is not None:
            gradients = [gradient / loss_scale for gradient in gradients]
        return loss, gradients

    def _evaluate_graph(self, params: Any, non_trainable: Any) -> Tuple[Any, Any]:
        self._assign(params, non_trainable)
        samples = self._test.y.shape[0]

        def add_batch(start: Any, correct: Any, loss: Any) -> List[Any]:
            with tf.device(_CPU):
                x, y = _scaled(self._test.x[start:start + _TEST_BATCH],
                               self._test.scale), self._test.y[start:start + _TEST_BATCH]
            logits = tf.cast(self._model(x, training=False), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            hits = tf.math.equal(tf.argmax(logits, 1, output_type=tf.int32), y)
            return [start + _TEST_BATCH, correct + tf.reduce_sum(tf.cast(hits, tf.int32)),
                    loss + tf.reduce_sum(tf.cast(losses, tf.float64))]

        zeros = [tf.constant(0), tf.constant(0), tf.constant(0.0, tf.float64)]
        _, correct, loss = tf.while_loop(lambda start, *_: start < samples, add_batch, zeros,
                                         parallel_iterations=1)
        return correct, loss

    def _zeros(self) -> List[Any]:
        return [tf.zeros(variable.shape) for variable in self._variables]

    def _assign(self, params: Any, non_trainable: Any) -> None:
        _split_into(params, self._variables)
        _split_into(non_trainable, self._non_trainable_variables)


def _out_of_memory(samples: int, error: Exception) -> DataError:
    said = (str(error).splitlines() or ["nothing more"])[0][:200]
    return DataError(
        f"out of memory with {samples} samples at a time", got=said, hint=
        "lower dataset.batch_size at the master, choose a smaller model, or give this worker more "
        "memory or swap"
    )


def _scaled(x: Any, scale: float) -> Any:
    x = tf.cast(x, tf.float32)
    return x if scale == 1.0 else x / scale


def _split(vector: Any, variables: Sequence[Any]) -> Iterator[Any]:
    """The values that a flat vector has for each variable."""
    if variables:
        sizes = [variable.shape.num_elements() for variable in variables]
        for variable, part in zip(variables, tf.split(vector, sizes)):
            yield tf.cast(tf.reshape(part, variable.shape), variable.dtype)


def _split_into(vector: Any, variables: Sequence[Any]) -> None:
    for variable, value in zip(variables, _split(vector, variables)):
        variable.assign(value)


def _concat(tensors: Sequence[Any]) -> Any:
    """Tensors or variables -> one float32 vector, empty for none."""
    return tf.concat(
        [tf.zeros(0)] + [tf.reshape(tf.cast(tensor, tf.float32), [-1]) for tensor in tensors], 0)
