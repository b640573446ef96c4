"""Files read ahead of need, by processes or a Dask cluster; may import files, rows, schema, singer and deliveries."""
