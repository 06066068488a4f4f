import { expect, test } from "bun:test";
import { isIPv4 as isNodeIPv4, isIPv6 as isNodeIPv6 } from "node:net";

import { isIP, isIPv4, isIPv6 } from "../src/ip.ts";
import { property } from "./support/random.ts";

test.each(["127.0.0.1", "0.0.0.0", "255.255.255.255"])("%s is an IPv4 address", (text) => {
  expect([isIPv4(text), isIPv6(text), isIP(text)]).toEqual([true, false, true]);
});

test.each(["::", "::1", "fe80::1%eth0", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "2001:DB8::"])(
  "%s is an IPv6 address",
  (text) => {
    expect([isIPv4(text), isIPv6(text), isIP(text)]).toEqual([false, true, true]);
  },
);

test.each([
  "",
  "1.2.3",
  "01.2.3.4",
  "256.1.1.1",
  "::ffff:1.2.3",
  "[::1]",
  "::1]:80/[::1",
  "%",
  "::1%",
  "1::2::3",
])("%p is none", (text) => {
  expect(isIP(text)).toBe(false);
});

property("what is an address is what node:net takes for one", 20_000, (random) => {
  const pieces = [
    "0",
    "1",
    "9",
    "12",
    "255",
    "256",
    "01",
    "f",
    "fe80",
    "ffff",
    "12345",
    ":",
    ":",
    "::",
    ".",
    ".",
    "%e",
  ];
  const text = random.text(random.int(1, 12), pieces);
  expect([text, isIPv4(text), isIPv6(text)]).toEqual([text, isNodeIPv4(text), isNodeIPv6(text)]);
});
