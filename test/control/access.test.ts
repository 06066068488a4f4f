import { describe, expect, test } from "bun:test";

import { Access, type AccessOptions, type Verdict } from "../../src/control/access.ts";
import { SocketOwners } from "../../src/host/credentials.ts";

const TOKEN = "correct horse battery".replaceAll(" ", "-");

function judge(
  options: Partial<AccessOptions>,
  from: string,
  uid?: number,
): Verdict | Promise<Verdict> {
  const access = new Access({
    uid: 1000,
    token: () => undefined,
    isInsecure: false,
    ownerOf: () => Promise.resolve(uid),
    ...options,
  });
  const local = { address: "192.168.1.5", port: 2660 };
  return access.judge({ kind: "tcp", local, remote: { address: from, port: 4711 } });
}

describe("Access.judge()", () => {
  test.each([
    [1000, "served"],
    [0, "served"],
    [1001, "refused"],
    [65534, "refused"],
    [undefined, "refused"],
  ])("on loopback serves its own user and root: %s is %s (S5)", async (uid, kind) => {
    for (const from of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]) {
      expect((await judge({}, from, uid)).kind).toBe(kind as Verdict["kind"]);
      // A token is no way around it.
      expect((await judge({ token: () => TOKEN }, from, uid)).kind).toBe(kind as Verdict["kind"]);
    }
  });

  test("from elsewhere wants a token, or the word that none is needed (S5)", async () => {
    for (const from of ["10.0.0.1", "128.0.0.1", "::2", "fe80::1", "::ffff:10.0.0.1"]) {
      expect((await judge({}, from, 1000)).kind).toBe("refused");
      expect((await judge({ isInsecure: true }, from)).kind).toBe("served");
      const locked = await judge({ token: () => TOKEN, isInsecure: true }, from);
      if (locked.kind !== "locked") throw new Error(`it is ${locked.kind}`);
      expect(locked.isToken(TOKEN)).toBe(true);
      for (const wrong of ["", TOKEN.slice(1), `${TOKEN}x`, TOKEN.toUpperCase()]) {
        expect(locked.isToken(wrong)).toBe(false);
      }
    }
  });

  test("on a Unix path serves its own user and root (S1)", async () => {
    const access = new Access({
      uid: 1000,
      token: () => undefined,
      isInsecure: false,
      ownerOf: () => Promise.resolve(undefined),
    });
    const of = async (uid: number): Promise<string> =>
      (await access.judge({ kind: "unix", credentials: { pid: 7, uid, gid: uid } })).kind;
    expect([await of(1000), await of(0), await of(1001)]).toEqual(["served", "served", "refused"]);
    expect((await access.judge({ kind: "unix", credentials: undefined })).kind).toBe("served");
  });
});

/** Rows as the kernel prints them: local, remote, state, uid, inode. */
function tableOf(...rows: [string, string, string, number, number][]): string {
  const lines = rows.map(
    ([local, remote, state, uid, inode], index) =>
      `   ${index}: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  ${uid}        0 ${inode} 1 0 20 0 0 10 -1`,
  );
  return `  sl  local_address rem_address   st tx_queue\n${lines.join("\n")}\n`;
}

describe("SocketOwners.ownerOf()", () => {
  const client = { address: "127.0.0.1", port: 0x9386 };
  const daemon = { address: "127.0.0.1", port: 0xa291 };
  const owners = (v4: string, v6: string = ""): SocketOwners =>
    new SocketOwners((path) => Promise.resolve(path.endsWith("6") ? v6 : v4));

  test("finds the end of the client, not ours (S5)", async () => {
    const table = tableOf(
      ["0100007F:A291", "00000000:0000", "0A", 1, 10],
      ["0100007F:A291", "0100007F:9386", "01", 2, 11],
      ["0100007F:9386", "0100007F:A291", "01", 3, 12],
    );
    expect(await owners(table).ownerOf(client, daemon)).toBe(3);
    expect(await owners(table).ownerOf(daemon, client)).toBe(2);
    expect(await owners(table).ownerOf(client, { ...daemon, port: 1 })).toBe(undefined);
  });

  test("finds IPv4 in an IPv6 socket, and IPv6 (S5)", async () => {
    const mapped = "0000000000000000FFFF00000100007F";
    const one = "00000000000000000000000001000000";
    const table = tableOf(
      [`${mapped}:9386`, `${mapped}:A291`, "01", 3, 12],
      [`${one}:9386`, `${one}:A291`, "01", 4, 13],
    );
    expect(await owners("", table).ownerOf(client, daemon)).toBe(3);
    const [a, b] = [client, daemon].map(({ port }) => ({ address: "::ffff:127.0.0.1", port }));
    expect(await owners("", table).ownerOf(a as typeof client, b as typeof client)).toBe(3);
    const [c, d] = [client, daemon].map(({ port }) => ({ address: "::1", port }));
    expect(await owners("", table).ownerOf(c as typeof client, d as typeof client)).toBe(4);
  });

  test("does not take a socket that nobody has open for one of root (S5)", async () => {
    for (const state of ["04", "05", "06"]) {
      const table = tableOf(["0100007F:9386", "0100007F:A291", state, 0, 0]);
      expect(await owners(table).ownerOf(client, daemon)).toBe(undefined);
    }
  });

  test("goes on after rows that it cannot read, and finds none in them", async () => {
    const broken = tableOf(
      ["01:9386", "02:A291", "01", 0, 12],
      ["zz:9386", "0100007F:A291", "01", 0, 12],
      ["0100007F:9386", "0100007F:A291", "01", 3, 12],
    );
    const asked = owners(broken, "what is this :9386 :A291 \n:9386 ");
    for (let round = 0; round < 2; round++) expect(await asked.ownerOf(client, daemon)).toBe(3);
  });

  test("looks once for all who ask meanwhile, and never too early", async () => {
    const looks: (() => void)[] = [];
    const asked = new SocketOwners((path) => {
      const { promise, resolve } = Promise.withResolvers<string>();
      if (path.endsWith("6")) return Promise.resolve("");
      looks.push(() => resolve(tableOf(["0100007F:9386", "0100007F:A291", "01", looks.length, 9])));
      return promise;
    });
    const first = asked.ownerOf(client, daemon);
    await Bun.sleep(0);
    const others = [asked.ownerOf(client, daemon), asked.ownerOf(client, daemon)];
    looks[0]?.();
    expect(await first).toBe(1);
    await Bun.sleep(0);
    looks[1]?.();
    expect(await Promise.all(others)).toEqual([2, 2]);
    expect(looks).toHaveLength(2);
  });
});
