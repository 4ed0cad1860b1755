"""GPUs: devices, partitions, quota, allocation and the drivers that find them."""
