// Other orchestrators: messages as datagrams, without answer, acknowledgement or identity.
//
// A message that arrives is routed by our own links, as if an instance here had sent it. A link to
// another orchestrator is a target without a queue: the kernel takes a datagram or it is dropped.

import { MAX_DATAGRAM_BYTES } from "./limits.ts";
import { messageChain, OrchestratorError } from "./errors.ts";
import type { DatagramSocket } from "./datagram.ts";
import type { QuietLog } from "./log.ts";
import { datagramOf, decodeDatagram, messageEnd, NO_REST, type Run } from "./message.ts";
import type { Translator } from "./message/translate.ts";
import type { LinkQueue, Target } from "./queue.ts";
import { type Router, Source } from "./router.ts";

/** The line of the longest datagram: the outer object and the newline come on top. */
const MAX_LINE: number = MAX_DATAGRAM_BYTES + '{"Storable":}\n'.length;

/** One other orchestrator, as the target of links. */
export class PeerTarget implements Target {
  isTouched = false;
  readonly #socket: DatagramSocket;
  readonly #host: string;
  readonly #port: number;
  readonly #translator: Translator;

  constructor(socket: DatagramSocket, host: string, port: number, translator: Translator) {
    this.#translator = translator;
    this.#socket = socket;
    this.#host = host;
    this.#port = port;
  }

  push(queue: LinkQueue, run: Run): void {
    queue.routed += run.count;
    const { type, dialect, chunk, start, end, longest } = run;
    if (dialect === "veecle") {
      this.#send(queue, chunk, start, end);
      return;
    }
    for (let at = start; at < end;) {
      at = this.#translator.translate(type, dialect, chunk, at, end, longest, MAX_LINE);
      const { bytes, notUtf8, oversize } = this.#translator;
      queue.drop("not_utf8", notUtf8);
      queue.drop("oversize", oversize);
      this.#send(queue, bytes, 0, bytes.length);
    }
  }

  flush(): void {}

  forget(): void {}

  /** Sends each line in `lines[start, end)` as one datagram. */
  #send(queue: LinkQueue, lines: Buffer, start: number, end: number): void {
    for (let at = start; at < end;) {
      const next = messageEnd("veecle", lines, at);
      const datagram = datagramOf(lines, at, next);
      at = next;
      if (datagram.length > MAX_DATAGRAM_BYTES) {
        queue.drop("oversize", 1);
        continue;
      }
      const result = this.#socket.send(datagram, this.#host, this.#port);
      if (result === "sent") queue.delivered++;
      else queue.drop(result === "full" ? "full" : "unreachable", 1);
    }
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
        rest: NO_REST,
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
