// What a web page can make a browser of this machine send to our ports: none of it is carried out (S6).

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";

import { type Daemon, withDaemon, withFolder } from "../support/daemon.ts";
import { until, Wire } from "../support/wire.ts";

setDefaultTimeout(60_000);

const ID = "11111111-2222-4333-8444-555555555555";
/** What a page would like to have carried out, as lines and as a frame. */
const CLEAR = '"Clear"\n';
const ADD = `{"Add":{"id":"${ID}","path":"/bin/true"}}\n`;
const FRAME = '\0\0\0\x07"Clear"';

const HOST = "Host: 127.0.0.1:2660";
const ORIGIN = "Origin: http://evil.example";

function request(method: string, headers: readonly string[], body: string): string {
  const length = body === "" ? [] : [`Content-Length: ${Buffer.byteLength(body)}`];
  return `${[`${method} / HTTP/1.1`, HOST, ORIGIN, ...headers, ...length].join("\r\n")}\r\n\r\n${body}`;
}

function post(type: string, body: string, ...headers: readonly string[]): string {
  return request("POST", [`Content-Type: ${type}`, ...headers], body);
}

const chunked = (body: string): string =>
  `${request("POST", ["Content-Type: text/plain", "Transfer-Encoding: chunked"], "")}${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;

/** Each as pieces that are sent one after the other; a browser sends them in one or in many. */
const FORMS: readonly [what: string, pieces: readonly (string | Buffer)[]][] = [
  ["a page", [request("GET", ["Accept: text/html"], "")]],
  ["a head", [request("HEAD", [], "")]],
  ["a question before a request", [request("OPTIONS", ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"], "")]],
  ["a request behind a question", [request("OPTIONS", ["Access-Control-Request-Method: POST"], ""), post("application/json", ADD)]],
  ["a fetch with text", [post("text/plain;charset=UTF-8", `${CLEAR}${ADD}`)]],
  ["a fetch with JSON", [post("application/json", ADD)]],
  ["a fetch with bytes", [post("application/octet-stream", FRAME)]],
  ["a fetch in chunks", [chunked(`\n${CLEAR}${ADD}`)]],
  ["a form in text", [post("text/plain", '{"Add":{"id":"' + ID + '","path":"/bin/true","x":"="}}\r\n')]],
  ["a form with a file", [post("multipart/form-data; boundary=x", `--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n${CLEAR}\r\n--x--\r\n`)]],
  ["a beacon", [post("text/plain;charset=UTF-8", `\n\n${CLEAR}${CLEAR}`, "Sec-Fetch-Mode: no-cors")]],
  ["methods of all kinds", [...["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "QUERY"].map((method) => request(method, [], CLEAR))]],
  ["a web socket", [request("GET", ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], ""), Buffer.from("8109" + Buffer.from(CLEAR).toString("hex"), "hex")]],
  ["HTTP/2 that is known beforehand", ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Buffer.from("000000040000000000", "hex"), FRAME]],
  ["HTTP/2 that is asked for", [request("GET", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"], ""), FRAME]],
  ["a connection that is kept", [request("GET", ["Connection: keep-alive"], ""), post("text/plain", CLEAR), CLEAR, ADD]],
  ["bodies behind each other", [post("text/plain", CLEAR) + post("text/plain", ADD) + CLEAR + ADD]],
  ["a header, and a body much later", [post("text/plain", "x").slice(0, -1), CLEAR]],
  ["a header that would be a line", [request("GET", [`X: \r\n${CLEAR}`, ADD], "")]],
  ["a path that would be a line", [`GET /\n${CLEAR}${ADD} HTTP/1.1\r\n\r\n`]],
  ["the oldest protocol", [`GET /\r\n${CLEAR}`]],
  ["an encrypted hello", [Buffer.from("160301020001000001fc0303", "hex"), CLEAR]],
  ["empty lines first", [`\r\n\r\n${post("text/plain", CLEAR)}`]],
  ["FTP", ["USER anonymous\r\n", CLEAR]],
]; // prettier-ignore

/** What is answered to pieces; each in a packet of its own, or all in one. */
async function told(address: string, pieces: readonly (string | Buffer)[]): Promise<string> {
  const wire = await Wire.connect(address);
  for (const piece of pieces) {
    wire.send(piece);
    if (pieces.length > 1) await Bun.sleep(5);
  }
  wire.finish();
  return (await wire.rest()).toString();
}

const TCP = {
  control: "127.0.0.1:0",
  args: ["--ephemeral", "--ipc-socket", "127.0.0.1:0"],
  env: { VEECLE_ORCHESTRATOR_LOG: "debug" },
};

/** Nothing was carried out, and nothing of it was taken for a request. */
async function expectUntouched(daemon: Daemon, id: string, requests: number): Promise<void> {
  const { runtimes } = await daemon.info();
  expect(Object.keys(runtimes)).toEqual([id]);
  expect(daemon.log.split(": handling request").length - 1).toBe(requests);
}

describe("the control socket over TCP", () => {
  test.each(FORMS)("takes nothing from a browser that sends %s", (_, pieces) =>
    withDaemon(async (daemon) => {
      const id = await daemon.add("/bin/true");
      const bytes = Buffer.concat(pieces.map((piece) => Buffer.from(piece as string)));
      const cuts = [1, 2, bytes.indexOf("\r\n\r\n") + 4, bytes.length >> 1];
      const ways = [pieces, [bytes], ...cuts.map((at) => [bytes.subarray(0, at), bytes.subarray(at)])];
      for (const way of ways) expect(await told(daemon.address, way)).toBe("");
      await daemon.logged(/closing a connection of no known dialect/);
      await expectUntouched(daemon, id, 2);
    }, TCP),
  ); // prettier-ignore

  test("takes nothing from a hundred connections of a browser at once", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add("/bin/true");
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, index) => {
          const [, pieces] = FORMS[index % FORMS.length] as (typeof FORMS)[number];
          return told(daemon.address, pieces).catch(() => "");
        }),
      );
      expect(new Set(answers)).toEqual(new Set([""]));
      await expectUntouched(daemon, id, 2);
    }, TCP));

  test("within TLS takes nothing either", () =>
    withFolder(async (_, launch) => {
      const file = (name: string): string => join(import.meta.dir, "../fixtures/tls", name);
      const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const { port } = probe;
      probe.stop(true);
      const tls = ["--tls-cert", file("daemon.pem"), "--tls-key", file("daemon.key")];
      const daemon = launch(["--control-socket", `localhost:${port}`, "--ephemeral", ...tls], {
        VEECLE_ORCHESTRATOR_LOG: "debug",
      });
      await until("it listens", () => Wire.connect(`127.0.0.1:${port}`).then((wire) => (wire.close(), true), () => undefined)); // prettier-ignore
      for (const form of [post("text/plain", CLEAR), request("GET", [], ""), `GET /\r\n${CLEAR}`]) {
        const answer = fetchRaw(port, form, file("ca.pem"));
        expect(await answer).toBe("");
      }
      const { stderr } = await daemon.end("SIGTERM");
      expect(stderr).toContain("closing a connection of no known dialect");
      expect(stderr).not.toContain("handling request");
    }));

  async function fetchRaw(port: number, text: string, ca: string): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    let got = "";
    await Bun.connect({
      hostname: "localhost",
      port,
      tls: { ca: await Bun.file(ca).text() },
      socket: {
        handshake: (socket) => void socket.write(text),
        data: (_, chunk) => void (got += chunk.toString()),
        close: () => resolve(got),
        error() {},
      },
    });
    return promise;
  }
});

test("A browser's datagrams are refused and counted: calls by voice, and HTTP/3 (S6)", () =>
  withDaemon(async (daemon) => {
    const to = Number((await daemon.ipcAddress()).split(":")[1]);
    const socket = await Bun.udpSocket({ hostname: "127.0.0.1" });
    const stun = Buffer.from("000100002112a442000102030405060708090a0b", "hex");
    const quic = Buffer.alloc(1_200);
    quic.writeUInt32BE(0xc0000000, 0);
    for (const bytes of [stun, quic]) socket.send(bytes, to, "127.0.0.1");
    await until("both are counted", async () => (await daemon.info()).peers.received === 2);
    expect((await daemon.info()).peers).toMatchObject({ received: 2, refused: 2, unlinked: 0 });
    socket.close();
  }, TCP));
