"""Films: frames in, frames out, with their time stamps, colours and sound. Needs PyAV, the extra `video`."""
