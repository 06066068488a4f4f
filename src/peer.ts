// Other orchestrators: messages as datagrams, without answer, acknowledgement or identity.
//
// A message that arrives is routed by our own links, as if an instance here had sent it. A link to
// another orchestrator is a target without a queue: the kernel takes a datagram or it is dropped.

import { MAX_DATAGRAM_BYTES } from "./limits.ts";
import { messageChain, OrchestratorError } from "./errors.ts";
import type { DatagramSocket } from "./datagram.ts";
import type { QuietLog } from "./log.ts";
import { datagramOf, decodeDatagram, messageEnd, type Run, translate } from "./message.ts";
import type { LinkQueue, Target } from "./outbox.ts";
import { type Router, Source } from "./router.ts";

/** One other orchestrator, as the target of links. */
export class PeerTarget implements Target {
  isTouched = false;
  readonly #socket: DatagramSocket;
  readonly #host: string;
  readonly #port: number;

  constructor(socket: DatagramSocket, host: string, port: number) {
    this.#socket = socket;
    this.#host = host;
    this.#port = port;
  }

  push(queue: LinkQueue, run: Run): void {
    queue.routed += run.count;
    for (let at = run.start; at < run.end;) {
      const end = messageEnd(run.dialect, run.chunk, at);
      this.#send(queue, run, at, end);
      at = end;
    }
  }

  flush(): void {}

  forget(): void {}

  #send(queue: LinkQueue, run: Run, start: number, end: number): void {
    let line: Buffer | undefined = run.chunk.subarray(start, end);
    if (run.dialect === "native") line = translate(run.type, "native", line);
    if (line === undefined) {
      queue.drop("not_utf8", 1);
      return;
    }
    const datagram = datagramOf(line, 0, line.length);
    if (datagram.length > MAX_DATAGRAM_BYTES) {
      queue.drop("oversize", 1);
      return;
    }
    const result = this.#socket.send(datagram, this.#host, this.#port);
    if (result === "sent") queue.delivered++;
    else queue.drop(result === "full" ? "full" : "unreachable", 1);
  }
}

/** What arrives from other orchestrators. */
export class PeerReceiver {
  readonly source: Source = new Source(undefined);
  readonly #router: Router;
  readonly #quiet: QuietLog;

  constructor(router: Router, quiet: QuietLog) {
    this.#router = router;
    this.#quiet = quiet;
  }

  /** Routes one datagram; a bad one is counted and changes nothing. */
  receive(datagram: Buffer, from: string): void {
    try {
      const { type, line } = decodeDatagram(datagram);
      this.#router.route(this.source, {
        dialect: "veecle",
        type,
        chunk: line,
        start: 0,
        end: line.length,
        count: 1,
        longest: line.length,
      });
    } catch (error) {
      if (!(error instanceof OrchestratorError)) throw error;
      this.source.received++;
      this.source.refused++;
      this.#quiet.warn("datagram", "run", "refused a datagram", {
        from,
        error: messageChain(error).join(": "),
      });
      return;
    }
    this.#router.flush();
  }
}
