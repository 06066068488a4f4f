// R23: a telemetry server that is down, slow, silent or cut off costs the oldest lines, and nothing else.

import { withDaemon } from "../support/daemon.ts";
import { until } from "../support/wire.ts";
import { compare, Group, type Measure, peakMemory, tell } from "./group.ts";
import { demand, memory, type Outcome, share } from "./outcome.ts";

export type ServerVice = "down" | "slow" | "silent" | "cut off";

export const SERVER_VICES: readonly ServerVice[] = ["down", "slow", "silent", "cut off"];

/** A slow server reads what there is, so often. */
const SLOW_MS = 500;
/** Of a connection that is cut off, how much comes before, and within a line as a rule. */
const CUT_BYTES = 300_000;

interface Connection {
  text: string;
  bytes: number;
}
type Socket = Bun.Socket<Connection>;

/** A server that checks its lines, and can get a vice and lose it. */
class Server {
  readonly port: number;
  lines = 0;
  /** How often lines were missing between two that arrived. */
  gaps = 0;
  #last = -1;
  #fault: string | undefined;
  #vice: ServerVice | undefined;
  readonly #open: Set<Socket> = new Set();
  #listener: Bun.TCPSocketListener<Connection> | undefined;

  constructor() {
    this.port = this.#listen();
  }

  set vice(vice: ServerVice | undefined) {
    const wasDown = this.#vice === "down";
    this.#vice = vice;
    if (vice === "down") this.close();
    else if (wasDown) this.#listen();
    for (const socket of this.#open) {
      if (vice === undefined) socket.resume();
      else this.#spoil(socket);
    }
  }

  /** @throws if what came was not whole lines, each once and in order */
  check(): void {
    demand(this.#fault === undefined, "The server gets whole lines in order", this.#fault);
  }

  close(): void {
    this.#listener?.stop(true);
    this.#listener = undefined;
  }

  #listen(): number {
    this.#listener = Bun.listen<Connection>({
      hostname: "127.0.0.1",
      port: this.port ?? 0,
      socket: {
        open: (socket) => {
          socket.data = { text: "", bytes: 0 };
          this.#open.add(socket);
          this.#spoil(socket);
        },
        data: (socket, chunk) => this.#take(socket, chunk),
        close: (socket) => void this.#open.delete(socket),
        error() {},
      },
    });
    return this.#listener.port;
  }

  #spoil(socket: Socket): void {
    if (this.#vice !== "silent" && this.#vice !== "slow") return;
    socket.pause();
    if (this.#vice === "slow") setTimeout(() => socket.resume(), SLOW_MS);
  }

  #take(socket: Socket, chunk: Buffer): void {
    const connection = socket.data;
    const lines = (connection.text + chunk.toString("latin1")).split("\n");
    connection.text = lines.pop() as string;
    connection.bytes += chunk.length;
    for (const line of lines) this.#line(line);
    if (this.#vice === "cut off" && connection.bytes > CUT_BYTES) socket.terminate();
    else this.#spoil(socket);
  }

  #line(line: string): void {
    this.lines++;
    try {
      const { n } = JSON.parse(line).message;
      if (n <= this.#last) this.#fault ??= `line ${n} after ${this.#last}`;
      if (n !== this.#last + 1) this.gaps++;
      this.#last = n;
    } catch {
      this.#fault ??= line;
    }
  }
}

export interface ExporterSize {
  readonly linesPerSecond: number;
  readonly bytesPerLine: number;
  readonly rounds: number;
  /** Of each half of a round: with a good server, and with the vice. */
  readonly ms: number;
}

/** A pair and one that reports telemetry, in turn with a good server and one with a vice. */
export async function badServer(vice: ServerVice, size: ExporterSize): Promise<Outcome> {
  const server = new Server();
  const pairs: { calm: Measure; disturbed: Measure }[] = [];
  let [before, peak, lines, lost] = [0, 0, 0, 0];
  try {
    await withDaemon(
      async (daemon) => {
        const group = await Group.start(daemon, "T", { window: 64, pauseMs: 1 });
        const reporter = await daemon.actor("player.ts");
        const { linesPerSecond: perSecond, bytesPerLine: bytes } = size;
        await tell(reporter, { telemetry: { perSecond, bytes } });
        await group.resume();
        await group.measure(size.ms);
        for (let round = 0; round < size.rounds; round++) {
          const calm = group.measure(size.ms);
          before = Math.max(before, await peakMemory(daemon, calm));
          server.vice = vice;
          const disturbed = group.measure(size.ms);
          peak = Math.max(peak, await peakMemory(daemon, disturbed));
          const isLast = round === size.rounds - 1;
          if (isLast && (vice === "down" || vice === "silent")) {
            await until("more is there than may wait", async () => {
              return ((await daemon.info()).telemetry?.dropped ?? 0) > 0;
            });
          }
          server.vice = undefined;
          pairs.push({ calm: await calm, disturbed: await disturbed });
        }
        ({ lines } = await tell(reporter, { telemetry: null }));
        const accounts = await until(
          `all ${lines} lines are accounted for, and none is queued`,
          async () => {
            const { telemetry } = await daemon.info();
            const isOver = telemetry?.queued === 0 && telemetry.sent + telemetry.dropped === lines;
            return isOver && telemetry;
          },
          30_000,
        );
        if (vice === "slow" || vice === "silent") {
          const { sent } = accounts;
          await until("every line that was sent is there", () => server.lines === sent);
        }
        server.check();
        // It is the oldest that are dropped: what waits is in one piece, with a gap at each of its ends.
        const hasPieces = vice === "slow" || vice === "cut off" || server.gaps <= 3 * size.rounds;
        demand(hasPieces, "The newest lines are kept", { gaps: server.gaps });
        lost = accounts.dropped;
        await group.settle();
        server.close();
      },
      { args: ["--telemetry-socket", `127.0.0.1:${server.port}`] },
    );
  } finally {
    server.close();
  }
  return {
    work: `${lines} lines to a server that is ${vice}: ${server.lines} arrived, ${lost} dropped`,
    figures: [share("rate of a pair", compare(pairs).rate, 0.95, 0.5), memory(peak - before, 8)],
  };
}
