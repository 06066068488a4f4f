import { describe, expect, test } from "bun:test";

import { MAX_QUEUE_BYTES, MAX_TOTAL_QUEUE_BYTES, MAX_TYPE_NAME_BYTES } from "../src/limits.ts";
import {
  DEFAULT_LINK_SETTINGS,
  formatExit,
  formatQueueBound,
  formatTarget,
  newInstanceId,
  NICE,
  parseInstanceId,
  parsePriority,
  parseQueueBound,
  parseSize,
  parseTarget,
  typeNameFault,
} from "../src/model.ts";
import { property } from "./support/random.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";

describe("parseInstanceId() (P-12)", () => {
  test.each([
    ID,
    ID.toUpperCase(),
    "0195FC7b-33e6-70E3-bee1-ac515185FAC7",
    "0195fc7b33e670e3bee1ac515185fac7",
    `{${ID}}`,
    `urn:uuid:${ID}`,
    `URN:UUID:${ID.toUpperCase()}`,
  ])("reads %p into the canonical form", (text) => {
    expect(parseInstanceId(text)).toBe(ID);
  });

  test("takes the nil and the largest UUID", () => {
    for (const digit of ["0", "f"]) {
      const id = [8, 4, 4, 4, 12].map((length) => digit.repeat(length)).join("-");
      expect(parseInstanceId(id)).toBe(id);
    }
  });

  const faults: [fault: string, text: string][] = [
    ["nothing", ""],
    ["a letter that is no digit", ID.replace("0", "g")],
    ["a digit too few", ID.slice(1)],
    ["a digit too many", `${ID}0`],
    ["hyphens in other places", "0195fc7b3-3e6-70e3-bee1-ac515185fac7"],
    ["some of the hyphens", "0195fc7b-33e670e3-bee1-ac515185fac7"],
    ["a space before it", ` ${ID}`],
    ["a newline behind it", `${ID}\n`],
    ["a brace that is not closed", `{${ID}`],
    ["a brace that is not opened", `${ID}}`],
    ["two pairs of braces", `{{${ID}}}`],
    ["braces in a URN", `urn:uuid:{${ID}}`],
    ["another URN", `urn:oid:${ID}`],
    ["digits of another script", ID.replace("0", "٠")],
    ["a NUL behind it", `${ID}\0`],
    ["a name", "__proto__"],
  ];
  test.each(faults)("refuses %s", (_, text) => {
    expect(parseInstanceId(text)).toBeUndefined();
  });
});

test("newInstanceId() makes canonical ids, and later ones sort after earlier ones", () => {
  const ids = Array.from({ length: 5_000 }, newInstanceId);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids.toSorted()).toEqual(ids);
  for (const id of ids) expect(parseInstanceId(id)).toBe(id);
});

describe("parsePriority()", () => {
  test("knows three priorities, and each has its nice value", () => {
    expect(parsePriority("high")).toBe("high");
    expect(parsePriority("normal")).toBe("normal");
    expect(parsePriority("low")).toBe("low");
    expect(NICE).toEqual({ high: -10, normal: 0, low: 10 });
  });

  test.each(["", "High", "NORMAL", "low ", "0", "__proto__", "toString", "constructor"])(
    "refuses %p",
    (text) => expect(parsePriority(text)).toBeUndefined(),
  );
});

describe("typeNameFault() (P-12)", () => {
  test.each([
    "T",
    "my_crate::deep::Message<alloc::vec::Vec<u8>>",
    "größe",
    "😀",
    'with "quotes" and \\',
    "a\nb",
    " ",
    "__proto__",
    "x".repeat(MAX_TYPE_NAME_BYTES - 1),
    "x".repeat(MAX_TYPE_NAME_BYTES),
    "é".repeat(MAX_TYPE_NAME_BYTES / 2),
    "😀".repeat(MAX_TYPE_NAME_BYTES / 4),
  ])("takes %p", (name) => {
    expect(typeNameFault(name)).toBeUndefined();
  });

  const faults: [fault: string, name: string, message: string][] = [
    ["an empty one", "", "it is empty"],
    ["one of 1025 letters", "x".repeat(1_025), "it is 1025 bytes long, more than 1024"],
    ["one of 1025 bytes", `x${"é".repeat(512)}`, "it is 1025 bytes long, more than 1024"],
    ["one of a megabyte", "x".repeat(2 ** 20), "it is 1048576 bytes long, more than 1024"],
    ["a NUL", "a\0", "it contains a NUL character"],
    ["a lone high surrogate", "a\ud83d", "it contains an unpaired surrogate"],
    ["a lone low surrogate", "\ude00", "it contains an unpaired surrogate"],
  ];
  test.each(faults)("refuses %s", (_, name, message) => {
    expect(typeNameFault(name)).toBe(message);
  });
});

describe("parseTarget() (P-12)", () => {
  const targets: [text: string, canonical: string][] = [
    [ID, ID],
    [`{${ID.toUpperCase()}}`, ID],
    ["127.0.0.1:2661", "127.0.0.1:2661"],
    ["0.0.0.0:1", "0.0.0.0:1"],
    ["255.255.255.255:65535", "255.255.255.255:65535"],
    ["10.0.0.1:00080", "10.0.0.1:80"],
    ["[::1]:2661", "[::1]:2661"],
    ["[::]:1", "[::]:1"],
    ["[0:0:0:0:0:0:0:1]:2661", "[::1]:2661"],
    ["[2001:DB8::00ff]:80", "[2001:db8::ff]:80"],
    ["[FE80::1%3]:2661", "[fe80::1%3]:2661"],
    ["[fe80::1%007]:2661", "[fe80::1%7]:2661"],
    ["[fe80::1%4294967295]:2661", "[fe80::1%4294967295]:2661"],
    ["[::1%0]:2661", "[::1]:2661"],
    ["[::ffff:127.0.0.1]:2661", "[::ffff:127.0.0.1]:2661"],
    ["[::FFFF:7f00:1]:2661", "[::ffff:127.0.0.1]:2661"],
    ["[::ffff:0:0]:1", "[::ffff:0.0.0.0]:1"],
    ["[::ffff:ffff:ffff]:1", "[::ffff:255.255.255.255]:1"],
    ["[::fffe:1:2]:1", "[::fffe:1:2]:1"],
    ["[::1.2.3.4]:1", "[::102:304]:1"],
  ];
  test.each(targets)("reads %p, and formatTarget() prints %p", (text, canonical) => {
    const target = parseTarget(text);
    if (target === undefined) throw new Error("refused");
    expect(formatTarget(target)).toBe(canonical);
    expect(parseTarget(canonical)).toEqual(target);
  });

  test("tells instances from other orchestrators", () => {
    expect(parseTarget(ID)).toEqual({ kind: "instance", id: ID });
    expect(parseTarget("127.0.0.1:2661")).toEqual({
      kind: "remote",
      host: "127.0.0.1",
      port: 2661,
    });
    expect(parseTarget("[::1]:2661")).toEqual({ kind: "remote", host: "::1", port: 2661 });
  });

  const faults: [fault: string, text: string][] = [
    ["nothing", ""],
    ["no port", "127.0.0.1"],
    ["an empty port", "127.0.0.1:"],
    ["port 0", "127.0.0.1:0"],
    ["port 65536", "127.0.0.1:65536"],
    ["a port of six digits", "127.0.0.1:000080"],
    ["a port with a sign", "127.0.0.1:+80"],
    ["a port in hexadecimal", "127.0.0.1:0x50"],
    ["a name", "localhost:2661"],
    ["an IPv4 address of three numbers", "127.0.1:2661"],
    ["an IPv4 number of 256", "127.0.0.256:2661"],
    ["an IPv4 number with a leading zero", "127.0.0.01:2661"],
    ["an IPv6 address without brackets", "::1:2661"],
    ["an IPv4 address in brackets", "[127.0.0.1]:2661"],
    ["an IPv6 address with two gaps", "[1::2::3]:2661"],
    ["an IPv6 address of nine groups", "[1:2:3:4:5:6:7:8:9]:2661"],
    ["empty brackets", "[]:2661"],
    ["an interface of no number", "[fe80::1%]:2661"],
    ["an interface by its name", "[fe80::1%eth0]:2661"],
    ["an interface of 2 to the power of 32", "[fe80::1%4294967296]:2661"],
    ["an interface of an IPv4 address", "127.0.0.1%1:2661"],
    ["a scheme", "udp://127.0.0.1:2661"],
    ["a space before it", " 127.0.0.1:2661"],
    ["a newline behind it", "127.0.0.1:2661\n"],
  ];
  test.each(faults)("refuses %s", (_, text) => {
    expect(parseTarget(text)).toBeUndefined();
  });

  property("has one spelling for each IPv6 address", 500, (random) => {
    const groups = Array.from({ length: 8 }, () =>
      random.chance(0.5) ? 0 : random.int(0, 0xffff),
    );
    const long = groups.map((group) => group.toString(16).padStart(4, "0")).join(":");
    const short = groups.map((group) => group.toString(16).toUpperCase()).join(":");
    const port = random.int(1, 65_535);
    const target = parseTarget(`[${long}]:${port}`);
    expect(target).toBeDefined();
    expect(parseTarget(`[${short}]:${port}`)).toEqual(target as NonNullable<typeof target>);
    const spelled = formatTarget(target as NonNullable<typeof target>);
    expect(parseTarget(spelled)).toEqual(target as NonNullable<typeof target>);
  });
});

describe("parseSize()", () => {
  const sizes: [text: string, bytes: number][] = [
    ["0B", 0],
    ["100B", 100],
    ["1KiB", 1_024],
    ["512 KiB", 524_288],
    ["4MiB", 4_194_304],
    ["2GiB", 2_147_483_648],
  ];
  test.each(sizes)("reads %p", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each([
    "",
    "100",
    "KiB",
    "1kib",
    "1KB",
    "1K",
    "-1B",
    "1.5MiB",
    " 1B",
    "1B ",
    "1  B",
    "0x1B",
    "1B\n",
  ])("refuses %p", (text) => expect(parseSize(text)).toBeUndefined());
});

describe("parseQueueBound()", () => {
  const bounds: [text: string, maxBytes: number, maxMessages: number, canonical: string][] = [
    ["4MiB", MAX_QUEUE_BYTES, Infinity, "4MiB"],
    ["1B", 1, Infinity, "1B"],
    ["1024B", 1_024, Infinity, "1KiB"],
    ["1025B", 1_025, Infinity, "1025B"],
    ["2048 KiB", 2_097_152, Infinity, "2MiB"],
    ["256MiB", MAX_TOTAL_QUEUE_BYTES, Infinity, "256MiB"],
    ["1", MAX_TOTAL_QUEUE_BYTES, 1, "1"],
    ["999999999", MAX_TOTAL_QUEUE_BYTES, 999_999_999, "999999999"],
  ];
  test.each(bounds)(
    "reads %p, and formatQueueBound() prints it",
    (text, maxBytes, maxMessages, canonical) => {
      const bound = parseQueueBound(text);
      expect(bound).toEqual({ maxBytes, maxMessages });
      const settings = { ...DEFAULT_LINK_SETTINGS, maxBytes, maxMessages };
      expect(formatQueueBound(settings)).toBe(canonical);
      expect(parseQueueBound(canonical)).toEqual({ maxBytes, maxMessages });
    },
  );

  test.each([
    "",
    "0",
    "0B",
    "-1",
    "1.5",
    "1e3",
    "1000000000",
    "0100",
    "257MiB",
    "268435457B",
    "none",
  ])("refuses %p", (text) => expect(parseQueueBound(text)).toBeUndefined());

  test("a link without settings has the default", () => {
    expect(formatQueueBound(DEFAULT_LINK_SETTINGS)).toBe("4MiB");
    expect(DEFAULT_LINK_SETTINGS.onFull).toBe("drop-oldest");
  });
});

test("formatExit() names the code, or the signal", () => {
  expect(formatExit({ code: 0, signal: undefined })).toBe("code 0");
  expect(formatExit({ code: 255, signal: undefined })).toBe("code 255");
  expect(formatExit({ code: undefined, signal: "SIGKILL" })).toBe("signal SIGKILL");
});
