// The side channel: JSON lines between the bench and its helper programs, both ends of it.
//
// A helper says its name when it is ready, answers commands in order, and ends when the bench does.

import { LineScanner, NEWLINE } from "../src/lines.ts";
import type { Command, Report } from "./plan.ts";

const MAX_LINE_BYTES = 1024 * 1024;

type Socket = Bun.Socket<undefined>;

/** Answers a command. */
export type Answer = (report: Omit<Report, "name">) => void;

function lines(visit: (text: string) => void): LineScanner {
  return new LineScanner(MAX_LINE_BYTES, (chunk, start, end) => {
    for (let line = start; line < end;) {
      const next = chunk.indexOf(NEWLINE, line) + 1;
      visit(chunk.toString("utf8", line, next));
      line = next;
    }
    return end;
  });
}

/** A helper program as the bench sees it. */
export class Helper {
  readonly #socket: Socket;
  readonly #reports: Report[] = [];
  #waiting: PromiseWithResolvers<Report> | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Sends a command and returns the answer, which must come within `timeoutMs`. */
  ask(command: Command, timeoutMs: number = 10_000): Promise<Report> {
    this.tell(command);
    return this.next(timeoutMs);
  }

  tell(command: Command): void {
    this.#socket.write(`${JSON.stringify(command)}\n`);
  }

  /** The next answer. @throws if none comes within `timeoutMs` */
  async next(timeoutMs: number): Promise<Report> {
    const early = this.#reports.shift();
    if (early !== undefined) return early;
    const waiting = Promise.withResolvers<Report>();
    this.#waiting = waiting;
    const timer = setTimeout(() => {
      if (this.#waiting === waiting) this.#waiting = undefined;
      waiting.reject(new Error(`no answer within ${timeoutMs} ms`));
    }, timeoutMs);
    return waiting.promise.finally(() => clearTimeout(timer));
  }

  push(report: Report): void {
    if (this.#waiting === undefined) this.#reports.push(report);
    else this.#waiting.resolve(report);
    this.#waiting = undefined;
  }
}

/** The bench's end: where helpers report. */
export class SideChannel implements Disposable {
  readonly path: string;
  readonly #listener: Bun.UnixSocketListener<undefined>;
  readonly #helpers: Map<string, PromiseWithResolvers<Helper>> = new Map();

  constructor(path: string) {
    this.path = path;
    const scanners = new Map<Socket, LineScanner>();
    this.#listener = Bun.listen<undefined>({
      unix: path,
      socket: {
        open: (socket) => {
          let helper: Helper | undefined;
          const scanner = lines((text) => {
            const report = JSON.parse(text) as Report;
            if (helper === undefined) {
              helper = new Helper(socket);
              this.#slot(report.name).resolve(helper);
            } else helper.push(report);
          });
          scanners.set(socket, scanner);
        },
        data: (socket, chunk) => scanners.get(socket)?.push(chunk),
        close: (socket) => void scanners.delete(socket),
      },
    });
  }

  /** The helper of that name, as soon as it is ready. */
  async helper(name: string, timeoutMs: number = 20_000): Promise<Helper> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error(`${name} is not ready`)), timeoutMs);
    return Promise.race([this.#slot(name).promise, late.promise]).finally(() =>
      clearTimeout(timer),
    );
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
  }

  #slot(name: string): PromiseWithResolvers<Helper> {
    let slot = this.#helpers.get(name);
    if (slot === undefined) {
      slot = Promise.withResolvers<Helper>();
      this.#helpers.set(name, slot);
    }
    return slot;
  }
}

/** A helper's end: says that it is ready, and takes commands until the bench is gone. */
export async function reportTo(
  path: string,
  name: string,
  take: (command: Command, answer: Answer) => void = () => {},
): Promise<Answer> {
  const scanner = lines((text) => take(JSON.parse(text) as Command, answer));
  const socket = await Bun.connect<undefined>({
    unix: path,
    socket: {
      data: (_socket, chunk) => scanner.push(chunk),
      close: () => process.exit(0),
    },
  });
  const answer: Answer = (report) => {
    socket.write(`${JSON.stringify({ name, ...report })}\n`);
  };
  answer({});
  return answer;
}
