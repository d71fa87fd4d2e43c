"""The microphone node with a mock of one thing: after SIGUSR1, PortAudio's flag of lost input is set on two blocks
of a stream that is otherwise real.
"""

import signal

import sounddevice

from aecf_ros.nodes.drivers import microphone
from aecf_ros.nodes.drivers.microphone_node import main

INPUT_OVERFLOW = 0x2  # paInputOverflow of portaudio.h
on_block, to_come = microphone.Microphone._on_block, []


def on_block_with_overflow(self, stream, data, frames, time_info, status):
    on_block(self, stream, data, frames, time_info, to_come.pop() if to_come else status)


if __name__ == "__main__":
    microphone.Microphone._on_block = on_block_with_overflow
    signal.signal(signal.SIGUSR1, lambda *_: to_come.extend([sounddevice.CallbackFlags(INPUT_OVERFLOW)] * 2))
    main()
