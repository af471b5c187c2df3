"""From Parquet files to batches. Import the modules by name: this file imports no pyarrow."""
