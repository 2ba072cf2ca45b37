"""The only place that touches processes, Docker, disks, GPUs and servers."""
