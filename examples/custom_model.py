"""A model of your own: any function of (input_shape, num_classes) that returns a tf.keras.Model
with logits.

Name it in the configuration as package.module:function, from the folder that holds the package:

    python flq_master.py --set model.name=examples.custom_model:build
    python flq_worker.py --worker_id 0 --allow examples.custom_model

Master and workers each import it, so it must be there on every machine. The run starts from the
weights that the function returned on the master. BatchNormalization is fine: its moving mean and
variance are not trained, they travel beside the update and are averaged. Layers with trainable =
False are fine too: their values travel once, to machines where the function gave others.

Try it alone, one round of local training of worker 0 on the digits, and a test before it:

    python -m examples.custom_model
"""

import tensorflow as tf


def build(input_shape, num_classes):
    """Convolution, batch normalisation and one linear layer, for images (height, width, channels).
    """
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        tf.keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.ReLU(),
        tf.keras.layers.MaxPooling2D(),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(num_classes),
    ])


def main():
    from flq import config
    from flq.learning.learner import build_learner

    learner = build_learner(config.build({"model.name": "examples.custom_model:build"}),
                            workers=[0], evaluate=True)
    params, non_trainable = learner.initial()
    print(f"{params.size} parameters, {non_trainable.size} moving statistics")
    print(
        f"before training: accuracy {learner.evaluate(params, non_trainable).accuracy:.3f}, loss "
        f"{learner.evaluate(params, non_trainable).loss:.3f}"
    )
    result = learner.local_update(params, non_trainable, worker=0, round_=0)
    print(f"{result.steps} local steps: mean loss {result.loss:.3f}")


if __name__ == "__main__":
    main()
