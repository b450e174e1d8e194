"""Local training: data sets, their partition, models, and the compiled local update.

The only package that knows TensorFlow, and it imports it late: `import flq.learning` does not, and
neither do datasets, partition, data_check, batches and initial, which are plain NumPy. Only
learner, trainer, device, the bodies of the models and what decodes images do.
"""
