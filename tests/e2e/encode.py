"""Encodes records by libraries that share nothing with our decoders; prints one line of Base64 per record.

It reads one JSON document from standard input, `{"format": …, …, "records": [{"value": …}, …]}`:

- `avro`: "schemas" is a list of schemas, of which a record's "schema" is an index (0 without it), and "named" a list of
  those whose types they refer to, each after those it refers to itself. Written by fastavro, which takes no fields that a
  schema lacks.
- `protobuf`: "files" maps paths to the text of .proto files (Google's own may be imported without being in it), "message"
  is the full name of a message type; values are in Protobuf's JSON. Compiled by protoc, written by Google's runtime. With
  "ask": "indexes" there are no records, and the message's path in its file is printed as a JSON list.
- `msgpack`: values become what they are in JSON; a number with a point is of 64 bits.
- `json`: values become JSON text.

"frame": {"id": 5}, in the document or in a record, puts Confluent's frame before it: a zero byte, the schema id as four
bytes, big end first, and for Protobuf the message's path in its file as the serializer of Confluent writes it.

What JSON can't say is an object of one key in Avro and MessagePack: {"$bytes": Base64}, {"$datetime": ISO 8601, with a
zone or without}, {"$float": "NaN", "Infinity", "-Infinity"}; in Avro alone {"$fixed": Base64}, {"$decimal": "1.23"},
{"$date": ISO}, {"$time": ISO}, {"$uuid": text}, {"$duration": [months, days, milliseconds]}, {"$union": [type name,
value]}, where a value alone takes the first type of a union that fits it; in MessagePack alone {"$timestamp": [seconds,
nanoseconds]}, {"$ext": [type, Base64]}, {"$pairs": [[key, value], …]}, a map whose keys aren't text.
"""

import base64
import datetime
import decimal
import io
import json
import os
import pathlib
import struct
import sys
import tempfile
import time
import uuid

# fastavro takes a time without a zone for one of the machine's.
os.environ["TZ"] = "UTC"
time.tzset()


def from_base64(text):
    return base64.b64decode(text, validate=True)


COMMON = {"$bytes": from_base64, "$datetime": datetime.datetime.fromisoformat, "$float": float}


def said(value, words):
    """The value that is meant by one of JSON; `words` says what the objects of one key `$…` are."""
    match value:
        case dict():
            key = next(iter(value), "")
            if len(value) == 1 and key.startswith("$"):
                return words[key](value[key])
            return {key: said(inner, words) for key, inner in value.items()}
        case list():
            return [said(inner, words) for inner in value]
        case _:
            return value


def avro(document):
    import fastavro

    words = COMMON | {
        "$fixed": from_base64,
        "$decimal": decimal.Decimal,
        "$date": datetime.date.fromisoformat,
        "$time": datetime.time.fromisoformat,
        "$uuid": uuid.UUID,
        # Source: Avro specification 1.12, "Duration": three unsigned integers of 32 bits, little end first.
        "$duration": lambda parts: struct.pack("<III", *parts),
        "$union": lambda pair: (pair[0], said(pair[1], words)),
    }
    named = {}
    for schema in document.get("named", []):
        fastavro.parse_schema(schema, named_schemas=named)
    # Each with the named types for itself: two versions of one record have one name.
    schemas = [fastavro.parse_schema(schema, named_schemas=dict(named)) for schema in document["schemas"]]

    def encode(record):
        out = io.BytesIO()
        schema = schemas[record.get("schema", 0)]
        fastavro.schemaless_writer(out, schema, said(record["value"], words), strict_allow_default=True)
        return out.getvalue()

    return encode, b""


def compiled(files):
    """A pool of the descriptors of these files and of all that they import."""
    import grpc_tools
    from google.protobuf import descriptor_pb2, descriptor_pool
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        googles = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        out = folder / ".descriptors"
        arguments = [f"-I{folder}", f"-I{googles}", "--include_imports", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *arguments, *files]) != 0:
            sys.exit("protoc refuses the files")
        found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:  # Those that are imported come first.
        pool.Add(file)
    return pool


def indexes(message):
    """The message's path in its file: its index there, or in the message around it, after the path of that."""
    around = message.containing_type
    siblings = around.nested_types if around else list(message.file.message_types_by_name.values())
    own = [sibling.full_name for sibling in siblings].index(message.full_name)
    return (indexes(around) if around else []) + [own]


def varint(number):
    """A zigzag varint of a number that isn't negative."""
    number *= 2
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def protobuf(document):
    from google.protobuf import json_format, message_factory

    pool = compiled(document["files"])
    descriptor = pool.FindMessageTypeByName(document["message"])
    path = indexes(descriptor)
    if document.get("ask") == "indexes":
        print(json.dumps(path))
        sys.exit()
    kind = message_factory.GetMessageClass(descriptor)

    def encode(record):
        message = json_format.ParseDict(record["value"], kind(), descriptor_pool=pool)
        return message.SerializeToString(deterministic=True)

    # The path's length and its indexes; [0], the most common, is one zero byte.
    # Source: confluentinc/schema-registry, `protobuf/MessageIndexes.java`, which writes by Kafka's `ByteUtils.writeVarint`.
    after_id = b"\0" if path == [0] else b"".join(map(varint, [len(path), *path]))
    return encode, after_id


def msgpack(document):
    import msgpack

    words = COMMON | {
        "$timestamp": lambda parts: msgpack.Timestamp(*parts),
        "$ext": lambda parts: msgpack.ExtType(parts[0], from_base64(parts[1])),
        "$pairs": lambda pairs: {said(key, words): said(value, words) for key, value in pairs},
    }
    return lambda record: msgpack.packb(said(record["value"], words), datetime=True), b""


def json_text(document):
    return lambda record: json.dumps(record["value"], ensure_ascii=False).encode(), b""


FORMATS = {"avro": avro, "protobuf": protobuf, "msgpack": msgpack, "json": json_text}

document = json.load(sys.stdin)
encode, after_id = FORMATS[document["format"]](document)
for record in document["records"]:
    frame = record.get("frame", document.get("frame"))
    prefix = b"\0" + struct.pack(">I", frame["id"]) + after_id if frame else b""
    print(base64.b64encode(prefix + encode(record)).decode())
