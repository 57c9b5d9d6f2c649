"""Compress the bfloat16 weights in a file with ZipNN, and print their share and its speeds as JSON."""

import json
import sys
import time
from pathlib import Path

from zipnn import ZipNN

data = Path(sys.argv[1]).read_bytes()
zipnn = ZipNN(input_format="byte", bytearray_dtype="bfloat16", threads=1)
start = time.process_time()
coded = zipnn.compress(bytearray(data))  # it works in place
middle = time.process_time()
assert zipnn.decompress(coded) == data
end = time.process_time()
speeds = {"encode_mb": len(data) / (middle - start) / 1e6, "decode_mb": len(data) / (end - middle) / 1e6}
print(json.dumps({"share": len(coded) / len(data), **speeds}))
