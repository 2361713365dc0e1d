"""Things going wrong while many clients pull: kills, broken upstreams, lost indexes, full disks."""
