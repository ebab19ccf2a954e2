"""The tables that istioctl's users know, of what a proxy holds: what each cell says, in which order rows come."""
