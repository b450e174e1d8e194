"""What FLQ needs of the machine that it runs on: its files, signals, memory, log and sensors."""
