"""DRAMsim3's configurations and traces."""
