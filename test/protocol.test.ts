import { describe, expect, test } from "bun:test";

import { messageChain, OrchestratorError } from "../src/errors.ts";
import { MAX_TOTAL_QUEUE_BYTES, MAX_TYPE_NAME_BYTES, MAX_UPLOAD_BYTES } from "../src/limits.ts";
import { type LinkTarget, ON_FULL } from "../src/model.ts";
import {
  decodeInstanceRequest,
  decodeRequest,
  decodeResponse,
  describeRequest,
  encodeError,
  encodeOk,
  encodeRequest,
  PROTOCOL_VERSION,
  type Request,
} from "../src/protocol.ts";
import { property, type Random } from "./support/random.ts";
import { refusal } from "./support/refusal.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
const OTHER = "0195fc7b-33e6-70e3-bee1-ac515185fac8";
const HASH = Array.from({ length: 32 }, (_, i) => i * 8);
const HASH_HEX = Buffer.from(HASH).toString("hex");

const upload = (length: number): Request => ({
  kind: "AddWithBinary",
  id: ID,
  length,
  hash: HASH_HEX,
  settings: { privileged: false },
});

describe("decodeRequest() (P-11)", () => {
  const link = (to: LinkTarget, from?: string): Request => ({
    kind: "Link",
    link: { from, typeName: "a::b::T", to },
  });
  const there: LinkTarget = { kind: "instance", id: OTHER };

  const good: [text: string, request: Request][] = [
    ['"Version"', { kind: "Version" }],
    ['"Info"', { kind: "Info" }],
    ['"Clear"', { kind: "Clear" }],
    ['{"Info":null}', { kind: "Info" }],
    [
      `{"Add":{"id":"${ID}","path":"/bin/x","privileged":false}}`,
      { kind: "Add", id: ID, path: "/bin/x", settings: { privileged: false } },
    ],
    [
      `{"Add":{"id":"${ID}","path":"/bin/x","privileged":true}}`,
      { kind: "Add", id: ID, path: "/bin/x", settings: { privileged: true } },
    ],
    [
      `{"Add":{"id":"${ID}","path":"/bin/x"}}`,
      { kind: "Add", id: ID, path: "/bin/x", settings: { privileged: false } },
    ],
    [
      `{"Add":{"id":"${ID}","path":"/bin/x","privileged":null}}`,
      { kind: "Add", id: ID, path: "/bin/x", settings: { privileged: false } },
    ],
    [
      `{"AddWithBinary":{"id":"${ID}","length":1234,"hash":${JSON.stringify(HASH)},"privileged":false}}`,
      upload(1_234),
    ],
    [
      `{"AddWithBinary":{"id":"${ID}","length":0,"hash":${JSON.stringify(HASH)},"privileged":false}}`,
      upload(0),
    ],
    [`{"Remove":"${ID}"}`, { kind: "Remove", id: ID }],
    [`{"Start":{"id":"${ID}","priority":"high"}}`, { kind: "Start", id: ID, priority: "high" }],
    [`{"Start":{"id":"${ID}","priority":"normal"}}`, { kind: "Start", id: ID, priority: "normal" }],
    [`{"Start":{"id":"${ID}","priority":"low"}}`, { kind: "Start", id: ID, priority: "low" }],
    [`{"Start":{"id":"${ID}","priority":null}}`, { kind: "Start", id: ID, priority: undefined }],
    [`{"Start":{"id":"${ID}"}}`, { kind: "Start", id: ID, priority: undefined }],
    [`{"Start":"${ID}"}`, { kind: "Start", id: ID, priority: undefined }],
    [`{"Stop":"${ID}"}`, { kind: "Stop", id: ID }],
    [`{"Stdout":"${ID}"}`, { kind: "Stdout", id: ID }],
    [`{"Link":{"type_name":"a::b::T","to":"${OTHER}"}}`, link(there)],
    [`{"Link":{"type_name":"a::b::T","to":"${OTHER}","from":"${ID}"}}`, link(there, ID)],
    [`{"Link":{"type_name":"a::b::T","to":"${OTHER}","from":null}}`, link(there)],
    [
      '{"Link":{"type_name":"a::b::T","to":"127.0.0.1:2661"}}',
      link({ kind: "remote", host: "127.0.0.1", port: 2661 }),
    ],
    [
      '{"Link":{"type_name":"a::b::T","to":"[::1]:2661"}}',
      link({ kind: "remote", host: "::1", port: 2661 }),
    ],
    [
      `{"Link":{"type_name":"a::b::T","to":"${OTHER}","queue":"512KiB","on_full":"block"}}`,
      {
        ...link(there),
        settings: { maxBytes: 524_288, maxMessages: Infinity, onFull: "block" },
      } as Request,
    ],
    [
      `{"Link":{"type_name":"a::b::T","to":"${OTHER}","queue":100,"on_full":null}}`,
      {
        ...link(there),
        settings: { maxBytes: MAX_TOTAL_QUEUE_BYTES, maxMessages: 100 },
      } as Request,
    ],
    [
      `{"Link":{"type_name":"a::b::T","to":"${OTHER}","queue":null,"on_full":"drop-newest"}}`,
      { ...link(there), settings: { onFull: "drop-newest" } } as Request,
    ],
    [
      `{"Unlink":{"type_name":"a::b::T","to":"${OTHER}","from":"${ID}"}}`,
      { kind: "Unlink", link: { from: ID, typeName: "a::b::T", to: there } },
    ],
  ];
  test.each(good)("reads %s", (text, request) => {
    expect(decodeRequest(text)).toEqual(request);
  });

  const otherForms: [form: string, text: string, request: Request][] = [
    ["white space", `\t{ "Stop" :\r\n "${ID}" } `, { kind: "Stop", id: ID }],
    [
      "another order of keys",
      `{"Start":{"priority":"low","id":"${ID}"}}`,
      {
        kind: "Start",
        id: ID,
        priority: "low",
      },
    ],
    [
      "unknown keys",
      `{"Start":{"id":"${ID}","since":[1,{}],"__proto__":{"priority":"low"}}}`,
      {
        kind: "Start",
        id: ID,
        priority: undefined,
      },
    ],
    ["escapes", `{"St\\u006fp":"\\u0030${ID.slice(1)}"}`, { kind: "Stop", id: ID }],
    ["an id in another form", `{"Stop":"urn:uuid:${ID.toUpperCase()}"}`, { kind: "Stop", id: ID }],
    [
      "a length with a fraction of zero",
      `{"AddWithBinary":{"id":"${ID}","length":1.0e1,"hash":[${HASH}]}}`,
      upload(10),
    ],
    [
      "a surrogate pair",
      `{"Add":{"id":"${ID}","path":"/\\ud83d\\ude00"}}`,
      {
        kind: "Add",
        id: ID,
        path: "/😀",
        settings: { privileged: false },
      },
    ],
  ];
  test.each(otherForms)("takes %s", (_, text, request) => {
    expect(decodeRequest(text)).toEqual(request);
  });

  const add = (fields: string): string => `{"Add":{"id":"${ID}","path":"/x",${fields}}}`;
  const binary = (fields: string): string => `{"AddWithBinary":{"id":"${ID}",${fields}}}`;
  const linkTo = (fields: string): string => `{"Link":{"type_name":"T","to":"${ID}",${fields}}}`;
  const list = (...numbers: unknown[]): string =>
    JSON.stringify([...HASH.slice(0, 31), ...numbers]);
  const bad: [fault: string, text: string, reason: string][] = [
    ["nothing", "", "it is not valid JSON (Unexpected EOF)"],
    ["half a string", '"Info', "it is not valid JSON (Unterminated string)"],
    ["two values", '"Info""Info"', "it is not valid JSON (Unable to parse JSON string)"],
    [
      "a trailing comma",
      `{"Stop":"${ID}",}`,
      "it is not valid JSON (Property name must be a string literal)",
    ],
    ["a NUL", '"Info"\0', "it is not valid JSON (Unrecognized token '\0')"],
    ["a NUL in a string", '"In\0fo"', "it is not valid JSON (Unterminated string)"],
    ["a byte order mark", '\ufeff"Info"', "it is not valid JSON (Unrecognized token '\ufeff')"],
    ["an HTTP request", "GET / HTTP/1.1", 'it is not valid JSON (Unexpected identifier "GET")'],
    ["a number", "7", "it is neither a string nor an object"],
    ["null", "null", "it is neither a string nor an object"],
    ["a list", '["Info"]', "it is neither a string nor an object"],
    ["an object without a key", "{}", "an object with exactly one key is needed, this one has 0"],
    [
      "an object of two keys",
      '{"Info":null,"Clear":null}',
      "an object with exactly one key is needed, this one has 2",
    ],
    ["an unknown word", '"info"', 'unknown request "info"'],
    ["an unknown object", '{"Reboot":{}}', 'unknown request "Reboot"'],
    ["__proto__", '{"__proto__":{"id":1}}', 'unknown request "__proto__"'],
    ["a name that every object has", '"toString"', 'unknown request "toString"'],
    ["a long name, which is cut", `"${"x".repeat(100)}"`, `unknown request "${"x".repeat(64)}"`],
    ["a lone surrogate", '"\\ud800"', 'unknown request "\\ud800"'],
    ["fields that nobody takes", '{"Info":{}}', "Info takes no fields"],
    ["Add as a word", '"Add"', "Add takes an object with fields"],
    ["Add of a list", '{"Add":[]}', "Add takes an object with fields"],
    ["Add without an id", '{"Add":{"path":"/x"}}', "Add.id is missing"],
    ["Add of a number", '{"Add":{"id":7,"path":"/x"}}', "Add.id is not a string"],
    ["Add of a name", '{"Add":{"id":"ping","path":"/x"}}', 'Add.id is not a UUID: "ping"'],
    [
      "an id inherited from __proto__",
      `{"Add":{"__proto__":{"id":"${ID}"},"path":"/x"}}`,
      "Add.id is missing",
    ],
    ["an id with a NUL behind it", `{"Stop":"${ID}\\u0000"}`, `Stop is not a UUID: "${ID}\\u0000"`],
    ["Add without a path", `{"Add":{"id":"${ID}"}}`, "Add.path is missing"],
    ["Add of no path", `{"Add":{"id":"${ID}","path":null}}`, "Add.path is not a string"],
    ["an empty path", `{"Add":{"id":"${ID}","path":""}}`, "Add.path is empty"],
    [
      "a path with a NUL",
      `{"Add":{"id":"${ID}","path":"/a\\u0000"}}`,
      "Add.path contains a NUL character",
    ],
    [
      "a path with a lone surrogate",
      `{"Add":{"id":"${ID}","path":"/\\udc00"}}`,
      "Add.path contains an unpaired surrogate",
    ],
    [
      "a privilege that is a word",
      add('"privileged":"true"'),
      "Add.privileged is neither true nor false",
    ],
    [
      "a privilege that is a number",
      add('"privileged":0'),
      "Add.privileged is neither true nor false",
    ],
    [
      "no length",
      binary(`"hash":${list(0)}`),
      "AddWithBinary.length is not a whole number of bytes",
    ],
    [
      "a length in words",
      binary(`"length":"1","hash":${list(0)}`),
      "AddWithBinary.length is not a whole number of bytes",
    ],
    [
      "a negative length",
      binary(`"length":-1,"hash":${list(0)}`),
      "AddWithBinary.length is not a whole number of bytes",
    ],
    [
      "half a byte",
      binary(`"length":0.5,"hash":${list(0)}`),
      "AddWithBinary.length is not a whole number of bytes",
    ],
    [
      "a length of 2^53",
      binary(`"length":9007199254740992,"hash":${list(0)}`),
      "AddWithBinary.length is not a whole number of bytes",
    ],
    [
      "a length without end",
      binary(`"length":1e999,"hash":${list(0)}`),
      "AddWithBinary.length is not a whole number of bytes",
    ],
    [
      "a hash as a word",
      binary(`"length":1,"hash":"${HASH_HEX}"`),
      "AddWithBinary.hash is not a list of 32 numbers from 0 to 255",
    ],
    [
      "a hash of 31 numbers",
      binary(`"length":1,"hash":${list()}`),
      "AddWithBinary.hash is not a list of 32 numbers from 0 to 255",
    ],
    [
      "a hash of 33 numbers",
      binary(`"length":1,"hash":${list(0, 0)}`),
      "AddWithBinary.hash is not a list of 32 numbers from 0 to 255",
    ],
    [
      "256 in a hash",
      binary(`"length":1,"hash":${list(256)}`),
      "AddWithBinary.hash is not a list of 32 numbers from 0 to 255",
    ],
    [
      "-1 in a hash",
      binary(`"length":1,"hash":${list(-1)}`),
      "AddWithBinary.hash is not a list of 32 numbers from 0 to 255",
    ],
    [
      "a fraction in a hash",
      binary(`"length":1,"hash":${list(0.5)}`),
      "AddWithBinary.hash is not a list of 32 numbers from 0 to 255",
    ],
    [
      "a word in a hash",
      binary(`"length":1,"hash":${list("1")}`),
      "AddWithBinary.hash is not a list of 32 numbers from 0 to 255",
    ],
    ["Remove of nothing", '"Remove"', "Remove is missing"],
    ["Stop of an object", `{"Stop":{"id":"${ID}"}}`, "Stop is not a string"],
    ["Start of nothing", '{"Start":null}', "Start takes an object with fields"],
    ["Start of a name", '{"Start":"ping"}', 'Start is not a UUID: "ping"'],
    [
      "an unknown priority",
      `{"Start":{"id":"${ID}","priority":"High"}}`,
      'Start.priority is unknown: "High"; it is high, normal or low',
    ],
    [
      "a priority that is a number",
      `{"Start":{"id":"${ID}","priority":-10}}`,
      "Start.priority is unknown: -10; it is high, normal or low",
    ],
    [
      "a priority that every object has",
      `{"Start":{"id":"${ID}","priority":"constructor"}}`,
      'Start.priority is unknown: "constructor"; it is high, normal or low',
    ],
    ["Link without a type name", `{"Link":{"to":"${ID}"}}`, "Link.type_name is missing"],
    [
      "Link of an empty type name",
      `{"Link":{"type_name":"","to":"${ID}"}}`,
      "Link.type_name cannot be used: it is empty",
    ],
    [
      "Link of a NUL",
      `{"Link":{"type_name":"a\\u0000","to":"${ID}"}}`,
      "Link.type_name cannot be used: it contains a NUL character",
    ],
    [
      "Link of a lone surrogate",
      `{"Link":{"type_name":"\\ud800","to":"${ID}"}}`,
      "Link.type_name cannot be used: it contains an unpaired surrogate",
    ],
    ["Link to nothing", '{"Link":{"type_name":"T"}}', "Link.to is missing"],
    [
      "Link to a name",
      '{"Link":{"type_name":"T","to":"localhost:1"}}',
      'Link.to is neither an instance id nor IP:PORT: "localhost:1"',
    ],
    [
      "Link from an address",
      linkTo('"from":"127.0.0.1:1"'),
      'Link.from is not a UUID: "127.0.0.1:1"',
    ],
    ["Link from a number", linkTo('"from":7'), "Link.from is not a string"],
    [
      "a queue of no size",
      linkTo('"queue":"0B"'),
      'Link.queue is neither a size up to 256MiB nor a number of messages: "0B"',
    ],
    [
      "a queue without bounds",
      linkTo('"queue":"1GiB"'),
      'Link.queue is neither a size up to 256MiB nor a number of messages: "1GiB"',
    ],
    [
      "a queue of half a message",
      linkTo('"queue":0.5'),
      "Link.queue is neither a size up to 256MiB nor a number of messages: 0.5",
    ],
    [
      "a queue in a list",
      linkTo('"queue":["4MiB"]'),
      'Link.queue is neither a size up to 256MiB nor a number of messages: ["4MiB"]',
    ],
    [
      "an unknown policy",
      linkTo('"on_full":"Block"'),
      'Link.on_full is unknown: "Block"; it is drop-oldest, drop-newest, block',
    ],
    ["Unlink of nothing", '"Unlink"', "Unlink takes an object with fields"],
  ];
  test.each(bad)("refuses %s", (_, text, reason) => {
    expect(refusal(() => decodeRequest(text))).toBe(`bad_request: Cannot parse request: ${reason}`);
  });

  test("refuses a request that names a field twice (P-9, R28)", () => {
    expect(refusal(() => decodeRequest(`{"Start":{"id":"${ID}","id":"${OTHER}"}}`))).toBe(
      'bad_request: Cannot parse request: the key "id" is there twice',
    );
  });

  test.each([-1, 0, 1])("holds the limit of an upload, by %i bytes", (more) => {
    const length = MAX_UPLOAD_BYTES + more;
    const text = encodeRequest(upload(length));
    if (more <= 0) expect(decodeRequest(text)).toEqual(upload(length));
    else {
      expect(refusal(() => decodeRequest(text))).toBe(
        "limit_exceeded: Cannot accept an upload of 268435457 bytes: the limit is 268435456; " +
          "copy the file to the machine and add its path instead",
      );
    }
  });

  test.each([1, MAX_TYPE_NAME_BYTES, MAX_TYPE_NAME_BYTES + 1])(
    "holds the limit of a type name at %i bytes",
    (bytes) => {
      const text = JSON.stringify({ Link: { type_name: "x".repeat(bytes), to: ID } });
      if (bytes <= MAX_TYPE_NAME_BYTES) expect(decodeRequest(text).kind).toBe("Link");
      else {
        expect(refusal(() => decodeRequest(text))).toBe(
          "bad_request: Cannot parse request: Link.type_name cannot be used: " +
            "it is 1025 bytes long, more than 1024",
        );
      }
    },
  );

  const MEGABYTE = "x".repeat(2 ** 20);
  const huge: [what: string, text: string][] = [
    ["request", JSON.stringify(MEGABYTE)],
    ["key", JSON.stringify({ [MEGABYTE]: 1 })],
    ["word that is no JSON", MEGABYTE],
    ["string that does not end", `"${MEGABYTE}`],
    ["id", JSON.stringify({ Stop: MEGABYTE })],
    ["priority", JSON.stringify({ Start: { id: ID, priority: MEGABYTE } })],
    ["list of priorities", JSON.stringify({ Start: { id: ID, priority: [MEGABYTE] } })],
    ["source", JSON.stringify({ Link: { type_name: "T", to: ID, from: MEGABYTE } })],
    ["target", JSON.stringify({ Link: { type_name: "T", to: MEGABYTE } })],
    ["type name", JSON.stringify({ Link: { type_name: MEGABYTE, to: ID } })],
  ];
  test.each(huge)("refuses a %s of a megabyte in one short message", (_, text) => {
    expect(refusal(() => decodeRequest(text)).length).toBeLessThan(400);
  });
});

describe("encodeRequest()", () => {
  test("writes what existing daemons read", () => {
    const text = (request: Request): string => encodeRequest(request);
    expect(text({ kind: "Version" })).toBe('"Version"');
    expect(text({ kind: "Stop", id: ID })).toBe(`{"Stop":"${ID}"}`);
    expect(text({ kind: "Start", id: ID, priority: undefined })).toBe(
      `{"Start":{"id":"${ID}","priority":null}}`,
    );
    expect(text({ kind: "Add", id: ID, path: "/bin/x", settings: { privileged: false } })).toBe(
      `{"Add":{"id":"${ID}","path":"/bin/x","privileged":false}}`,
    );
    expect(text(upload(3))).toBe(
      `{"AddWithBinary":{"id":"${ID}","length":3,"hash":[${HASH}],"privileged":false}}`,
    );
    const to = { kind: "remote", host: "::1", port: 2661 } as const;
    expect(text({ kind: "Link", link: { from: undefined, typeName: 'a::"T"', to } })).toBe(
      '{"Link":{"type_name":"a::\\"T\\"","to":"[::1]:2661"}}',
    );
    expect(text({ kind: "Unlink", link: { from: ID, typeName: "T", to } })).toBe(
      `{"Unlink":{"from":"${ID}","type_name":"T","to":"[::1]:2661"}}`,
    );
  });

  property("is read back by decodeRequest() as the same request", 2_000, (random) => {
    const request = randomRequest(random);
    expect(decodeRequest(encodeRequest(request))).toEqual(request);
  });
});

property(
  "decodeRequest() answers a damaged request with a refusal or a request",
  5_000,
  (random) => {
    const text = damage(random, encodeRequest(randomRequest(random)));
    try {
      const request = decodeRequest(text);
      expect(decodeRequest(encodeRequest(request))).toEqual(request);
    } catch (error) {
      expect(error).toBeInstanceOf(OrchestratorError);
      expect(messageChain(error).join()).not.toMatch(/[\r\n]/);
    }
  },
);

describe("encodeOk() (P-6)", () => {
  test.each([
    [null, '{"Ok":null}'],
    [undefined, '{"Ok":null}'],
    [PROTOCOL_VERSION, '{"Ok":"0.1.0"}'],
    [{ runtimes: {}, links: {} }, '{"Ok":{"runtimes":{},"links":{}}}'],
    ["a\nb", '{"Ok":"a\\nb"}'],
  ])("writes %j as one line with one key", (value, text) => {
    expect(encodeOk(value)).toBe(text);
    expect(decodeResponse(text)).toEqual({ Ok: value ?? null });
  });
});

describe("encodeError() (P-6)", () => {
  const error = new OrchestratorError("cannot_run", "Cannot start", {
    cause: new Error("not\nfound"),
  });

  test("has one key in the Veecle dialect, and the code in the native one", () => {
    expect(encodeError(error, false)).toBe('{"Err":["Cannot start","not; found"]}');
    expect(encodeError(error, true)).toBe(
      '{"Err":["Cannot start","not; found"],"code":"cannot_run"}',
    );
    expect(encodeError(new TypeError("x"), true)).toBe('{"Err":["x"],"code":"internal"}');
  });

  test("replaces unpaired surrogates, which strict parsers refuse", () => {
    expect(encodeError(new Error("a\ud800b"), false)).toBe('{"Err":["a\ufffdb"]}');
  });

  test("is read back by decodeResponse()", () => {
    expect(decodeResponse(encodeError(error, true))).toEqual({
      Err: ["Cannot start", "not; found"],
      code: "cannot_run",
    });
  });
});

describe("decodeResponse()", () => {
  test("reads what existing daemons write", () => {
    expect(decodeResponse('{"Ok":null}')).toEqual({ Ok: null });
    expect(decodeResponse('{"Ok":{"a":[1]}} ')).toEqual({ Ok: { a: [1] } });
    expect(decodeResponse('{"Err":["a","b"]}')).toEqual({ Err: ["a", "b"] });
    expect(decodeResponse('{"Err":[]}')).toEqual({ Err: [] });
  });

  test.each(["", "{", "null", "[]", "7", '"Ok"', "{}", '{"Err":"a"}', '{"Err":[1]}', '{"err":[]}'])(
    "refuses %p",
    (text) => {
      expect(refusal(() => decodeResponse(text))).toStartWith("bad_request: ");
    },
  );

  test("a refusal speaks of a response", () => {
    expect(refusal(() => decodeResponse("7"))).toContain("Cannot parse response: ");
    expect(refusal(() => decodeResponse("{"))).toContain("Cannot parse response: ");
  });
});

describe("decodeInstanceRequest()", () => {
  test("reads what instances send", () => {
    expect(decodeInstanceRequest({ StartRuntime: { id: ID, priority: null } })).toEqual({
      kind: "Start",
      id: ID,
      priority: undefined,
    });
    expect(decodeInstanceRequest({ StartRuntime: { id: ID, priority: "high" } })).toEqual({
      kind: "Start",
      id: ID,
      priority: "high",
    });
    expect(decodeInstanceRequest({ StartRuntime: { id: ID } })).toEqual({
      kind: "Start",
      id: ID,
      priority: undefined,
    });
    expect(decodeInstanceRequest({ StopRuntime: { id: ID } })).toEqual({ kind: "Stop", id: ID });
  });

  const bad: [text: string, reason: string][] = [
    ["null", "it is neither StartRuntime nor StopRuntime"],
    ['"StopRuntime"', "it is neither StartRuntime nor StopRuntime"],
    ["[]", "it is neither StartRuntime nor StopRuntime"],
    ["{}", "it is neither StartRuntime nor StopRuntime"],
    [`{"Stop":"${ID}"}`, "it is neither StartRuntime nor StopRuntime"],
    [`{"AddRuntime":{"id":"${ID}"}}`, "it is neither StartRuntime nor StopRuntime"],
    [`{"StopRuntime":{"id":"${ID}"},"x":1}`, "it is neither StartRuntime nor StopRuntime"],
    [`{"StopRuntime":"${ID}"}`, "StopRuntime takes an object with fields"],
    ['{"StopRuntime":{}}', "StopRuntime.id is missing"],
    ['{"StopRuntime":{"id":7}}', "StopRuntime.id is not a string"],
    ['{"StopRuntime":{"id":"ping"}}', 'StopRuntime.id is not a UUID: "ping"'],
    ['{"StartRuntime":null}', "StartRuntime takes an object with fields"],
    [
      `{"StartRuntime":{"id":"${ID}","priority":"x"}}`,
      'StartRuntime.priority is unknown: "x"; it is high, normal or low',
    ],
  ];
  test.each(bad)("refuses %s", (text, reason) => {
    expect(refusal(() => decodeInstanceRequest(JSON.parse(text)))).toBe(
      `bad_request: Cannot parse request: ${reason}`,
    );
  });

  test("refuses nothing at all", () => {
    expect(refusal(() => decodeInstanceRequest(undefined))).toBe(
      "bad_request: Cannot parse request: it is neither StartRuntime nor StopRuntime",
    );
  });
});

describe("describeRequest()", () => {
  const to: LinkTarget = { kind: "remote", host: "127.0.0.1", port: 2661 };
  const table: [text: string, request: Request][] = [
    ["Version", { kind: "Version" }],
    ["Info", { kind: "Info" }],
    ["Clear", { kind: "Clear" }],
    [`Add(${ID}, "/a b")`, { kind: "Add", id: ID, path: "/a b", settings: { privileged: false } }],
    [
      `Add(${ID}, "/x", {"privileged":true})`,
      { kind: "Add", id: ID, path: "/x", settings: { privileged: true } },
    ],
    [`AddWithBinary(${ID}, 7 bytes)`, upload(7)],
    [`Remove(${ID})`, { kind: "Remove", id: ID }],
    [`Start(${ID})`, { kind: "Start", id: ID, priority: undefined }],
    [`Start(${ID}, low)`, { kind: "Start", id: ID, priority: "low" }],
    [`Stop(${ID})`, { kind: "Stop", id: ID }],
    [`Stdout(${ID})`, { kind: "Stdout", id: ID }],
    [
      `Link({"from":"${ID}","type_name":"T","to":"127.0.0.1:2661"})`,
      { kind: "Link", link: { from: ID, typeName: "T", to } },
    ],
    [
      'Unlink({"type_name":"T","to":"127.0.0.1:2661"})',
      { kind: "Unlink", link: { from: undefined, typeName: "T", to } },
    ],
  ];
  test.each(table)("writes %s", (text, request) => {
    expect(describeRequest(request)).toBe(text);
  });
});

function randomRequest(random: Random): Request {
  const id = (): string => [4, 2, 2, 2, 6].map((n) => random.bytes(n).toString("hex")).join("-");
  const text = (length: number): string =>
    random.text(random.size(1, length), [
      "a",
      "::",
      " ",
      '"',
      "\\",
      "/",
      "\n",
      "é",
      "😀",
      "\u2028",
    ]);
  const kind = random.pick([
    "Version",
    "Info",
    "Clear",
    "Add",
    "AddWithBinary",
    "Remove",
    "Start",
    "Stop",
    "Stdout",
    "Link",
    "Unlink",
  ] as const);
  switch (kind) {
    case "Version":
    case "Info":
    case "Clear":
      return { kind };
    case "Add":
      return { kind, id: id(), path: text(300), settings: { privileged: random.chance(0.5) } };
    case "AddWithBinary":
      return {
        kind,
        id: id(),
        length: random.size(0, MAX_UPLOAD_BYTES),
        hash: random.bytes(32).toString("hex"),
        settings: { privileged: random.chance(0.5) },
      };
    case "Start":
      return { kind, id: id(), priority: random.pick(["high", "normal", "low", undefined]) };
    case "Remove":
    case "Stop":
    case "Stdout":
      return { kind, id: id() };
    case "Link":
    case "Unlink": {
      const port = random.int(1, 65_535);
      const host = random.pick(["127.0.0.1", "::1", "fe80::aa"]);
      const to: LinkTarget = random.chance(0.5)
        ? { kind: "instance", id: id() }
        : { kind: "remote", host, port };
      const link = { from: random.chance(0.5) ? id() : undefined, typeName: text(250), to };
      if (kind === "Unlink" || random.chance(0.5)) return { kind, link };
      const bound = random.chance(0.5)
        ? { maxBytes: random.size(1, MAX_TOTAL_QUEUE_BYTES), maxMessages: Infinity }
        : { maxBytes: MAX_TOTAL_QUEUE_BYTES, maxMessages: random.size(1, 1_000_000) };
      return { kind, link, settings: { ...bound, onFull: random.pick(ON_FULL) } };
    }
  }
}

/** Replaces, removes, inserts or repeats a few pieces of a text. */
function damage(random: Random, text: string): string {
  const pieces = [
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "-",
    "1e9",
    "\n",
    "\0",
    "\\ud800",
  ];
  let damaged = text;
  for (let times = random.int(1, 4); times > 0; times--) {
    const at = random.int(0, damaged.length);
    const end = Math.min(damaged.length, at + random.size(0, 10));
    const piece = random.pick([random.pick(pieces), "", damaged.slice(at, end).repeat(2)]);
    damaged = damaged.slice(0, at) + piece + damaged.slice(end);
  }
  return damaged;
}
