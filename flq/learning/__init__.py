"""Local training: data sets, their partition, models, and the compiled local update.

The only package that knows TensorFlow, and it imports it late: `import flq.learning` does not, and
neither do datasets, partition, batches and initial, which are plain NumPy. Only learner, trainer,
device and the bodies of the models do.
"""
