import { describe, expect, test } from "bun:test";

import {
  type Address,
  formatAddress,
  parseAddress,
  parseTcpAddress,
  plainAddress,
  socketPathFault,
} from "../src/address.ts";
import { OrchestratorError } from "../src/errors.ts";
import { MAX_SOCKET_PATH_BYTES } from "../src/limits.ts";
import { refusal } from "./support/refusal.ts";

const LABEL = "a".repeat(63);

describe("parseAddress()", () => {
  const good: [text: string, address: Address][] = [
    ["/run/x.socket", { kind: "unix", path: "/run/x.socket" }],
    ["./x.socket", { kind: "unix", path: "./x.socket" }],
    ["dir/with:colon", { kind: "unix", path: "dir/with:colon" }],
    ["/with space/größe", { kind: "unix", path: "/with space/größe" }],
    ["127.0.0.1:2660", { kind: "tcp", host: "127.0.0.1", port: 2660 }],
    ["0.0.0.0:0", { kind: "tcp", host: "0.0.0.0", port: 0 }],
    ["localhost:65535", { kind: "tcp", host: "localhost", port: 65_535 }],
    ["my_host-1.example.org:80", { kind: "tcp", host: "my_host-1.example.org", port: 80 }],
    ["example.org.:80", { kind: "tcp", host: "example.org.", port: 80 }],
    [`${LABEL}.org:80`, { kind: "tcp", host: `${LABEL}.org`, port: 80 }],
    ["[::1]:2660", { kind: "tcp", host: "::1", port: 2660 }],
    ["[fe80::1%eth0]:2660", { kind: "tcp", host: "fe80::1%eth0", port: 2660 }],
  ];
  test.each(good)("reads %p, and formatAddress() prints it back", (text, address) => {
    expect(parseAddress(text)).toEqual(address);
    expect(formatAddress(address)).toBe(text);
  });

  const bad: [text: string, reason: string][] = [
    ["", 'it is neither a path with a "/" nor HOST:PORT'],
    ["x.socket", 'it is neither a path with a "/" nor HOST:PORT'],
    ["http://localhost:80", "it is a URL, and HOST:PORT has no scheme"],
    ["localhost:", "the port is not 0 to 65535"],
    ["localhost:65536", "the port is not 0 to 65535"],
    ["localhost:-1", "the port is not 0 to 65535"],
    ["localhost:1e3", "the port is not 0 to 65535"],
    ["localhost: 80", "the port is not 0 to 65535"],
    ["localhost:80\n", "the port is not 0 to 65535"],
    ["localhost:000080", "the port is not 0 to 65535"],
    [":80", "the host is not a name or an IP address"],
    ["a..b:80", "the host is not a name or an IP address"],
    ["a b:80", "the host is not a name or an IP address"],
    ["-a:80", "the host is not a name or an IP address"],
    ["a-:80", "the host is not a name or an IP address"],
    ["a\0b:80", "the host is not a name or an IP address"],
    ["größe:80", "the host is not a name or an IP address"],
    [`${LABEL}a:80`, "the host is not a name or an IP address"],
    ["::1:80", "an IPv6 address stands in brackets, [::1]:2661"],
    ["a:b:80", "an IPv6 address stands in brackets, [::1]:2661"],
    ["[]:80", "what stands in brackets is not an IPv6 address"],
    ["[127.0.0.1]:80", "what stands in brackets is not an IPv6 address"],
    ["[::1::]:80", "what stands in brackets is not an IPv6 address"],
  ];
  test.each(bad)("refuses %p: %s", (text, reason) => {
    expect(refusal(() => parseAddress(text))).toBe(
      `misuse: Cannot use ${JSON.stringify(text)} as an address: ${reason}`,
    );
  });

  test("says how to name a socket in the working directory", () => {
    try {
      parseAddress("x.socket");
    } catch (error) {
      expect((error as OrchestratorError).hint).toBe(
        "for a socket in this folder, write ./x.socket",
      );
    }
    expect.assertions(1);
  });

  test.each([-1, 0, 1])("knows the longest legal path, by %i bytes", (more) => {
    const path = `/${"é".repeat(40)}`.padEnd(MAX_SOCKET_PATH_BYTES - 40 + more, "x");
    expect(Buffer.byteLength(path)).toBe(MAX_SOCKET_PATH_BYTES + more);
    if (more <= 0) expect(parseAddress(path)).toEqual({ kind: "unix", path });
    else {
      expect(refusal(() => parseAddress(path))).toBe(
        `misuse: Cannot use socket path ${JSON.stringify(path)}: it is 108 bytes long, and the system allows 107`,
      );
    }
  });

  test("refuses a path with a NUL", () => {
    expect(refusal(() => parseAddress("/a\0b"))).toBe(
      'misuse: Cannot use socket path "/a\\u0000b": it contains a NUL character',
    );
  });
});

test("parseTcpAddress() takes no path", () => {
  expect(refusal(() => parseTcpAddress("localhost"))).toBe(
    'misuse: Cannot use "localhost" as an address: it is not HOST:PORT',
  );
  expect(refusal(() => parseTcpAddress("/run/x:80"))).toBe(
    'misuse: Cannot use "/run/x:80" as an address: the host is not a name or an IP address',
  );
});

test.each([
  ["127.0.0.1", "127.0.0.1"],
  ["::FFFF:127.0.0.1", "127.0.0.1"],
  ["FD00::A", "fd00::a"],
  ["FE80::1%wlP2p1s0", "fe80::1%wlP2p1s0"], // names of interfaces differ by case
])("plainAddress() makes %s %s", (address, plain) => {
  expect(plainAddress(address)).toBe(plain);
});

test("socketPathFault() finds none in an ordinary path", () => {
  expect(socketPathFault("/run/user/1000/x.socket")).toBeUndefined();
});

describe("parseTcpAddress(), where a port need not be named", () => {
  test.each([
    ["10.0.0.2", "10.0.0.2", 0],
    ["10.0.0.2:2661", "10.0.0.2", 2661],
    ["lab.example.org", "lab.example.org", 0],
    ["[::1]", "::1", 0],
    ["[fe80::1%2]:2661", "fe80::1%2", 2661],
  ])("reads %p", (text, host, port) => {
    expect(parseTcpAddress(text, 0)).toEqual({ kind: "tcp", host, port });
  });

  test.each([
    ["fe80::1%2", "an IPv6 address stands in brackets, [::1]:2661"],
    ["::1", "an IPv6 address stands in brackets, [::1]:2661"],
    ["lab:http", "the port is not 0 to 65535"],
    ["", "the host is not a name or an IP address"],
  ])("refuses %p as it was typed", (text, reason) => {
    expect(refusal(() => parseTcpAddress(text, 0))).toBe(
      `misuse: Cannot use ${JSON.stringify(text)} as an address: ${reason}`,
    );
  });
});
