"""Data of your own in a CSV file: look at them, then train on them.

    python -m examples.own_csv

It makes measurements.csv in the current folder: sensors of 7 sites tell three kinds of weather
apart by temperature (degrees), pressure (pascal, around 100,000) and humidity (0 to 1).
"""

import csv
import random

import numpy as np

import flq
from flq import config
from flq.learning.data_check import check_data
from flq.reports import data_report

KINDS = {"clear": (24, 102500, 0.35), "rain": (14, 99800, 0.90), "fog": (6, 101200, 0.97)}


def write(path, rows=1200):
    draw = random.Random(5)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["site", "temperature", "pressure", "humidity", "weather"])
        for _ in range(rows):
            site, kind = draw.randrange(7), draw.choice(sorted(KINDS))
            celsius, pascal, humidity = KINDS[kind]
            table.writerow([
                f"site-{site}", round(draw.gauss(celsius + site, 4), 1),
                round(draw.gauss(pascal, 600)), round(min(1.0, draw.gauss(humidity, 0.05)), 3), kind
            ])


if __name__ == "__main__":
    write("measurements.csv")
    # each site is a client, and a client's rows go to one worker
    common = {"dataset.name": "csv:measurements.csv?label=weather&client=site",
              "dataset.data_dir": ".", "dataset.partition": "natural", "model.name": "softmax",
              "total_workers": 3, "max_rounds": 20}
    settings = config.build(common)
    print(data_report.text(settings, check_data(settings)))
    for standardize in (False, True):
        result = flq.simulate(common, standardize=standardize)
        print(f"standardize {standardize}: {result}")
    # the model takes degrees, pascals and humidity as they are in the file
    print(result.model.predict(np.array([[22.0, 102300.0, 0.4]]), verbose=0).argmax(), "is clear")
