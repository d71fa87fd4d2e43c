"""Made-up worlds for the shipped model `av_digits`: a digit on a card in front of a camera, its name spoken into a
microphone.

`sources` says where handwriting and voices come from and who may see which, `scenes` draws camera frames, `speech`
makes sound, `recording` strings both together in time.
"""
