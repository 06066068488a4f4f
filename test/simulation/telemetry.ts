// The telemetry server of a simulation: every line once, whole, and in the order of its source.

import type { InstanceId } from "../../src/model.ts";
import type { TelemetryExporter } from "../../src/telemetry.ts";
import type { Wire } from "./wire.ts";

export class TelemetryServer {
  wire: Wire | undefined;
  /** Lines that the daemon has read. */
  read = 0;
  #served = 0;
  readonly #demand: (isSo: boolean, what: string, found?: unknown) => void;
  readonly #next: Map<InstanceId, number> = new Map();
  readonly #last: Map<InstanceId, number> = new Map();
  #rest = "";

  constructor(demand: (isSo: boolean, what: string, found?: unknown) => void) {
    this.#demand = demand;
  }

  /** A line that an instance may send. */
  next(id: InstanceId): string {
    const line = (this.#next.get(id) ?? 0) + 1;
    this.#next.set(id, line);
    return JSON.stringify({ id, line });
  }

  /** Another daemon begins; what the one before has not sent is lost. */
  restarted(): void {
    this.closed();
    this.read = 0;
    this.#served = 0;
  }

  closed(): void {
    this.#rest = "";
    this.wire = undefined;
  }

  take(bytes: Buffer): void {
    const lines = (this.#rest + bytes.toString()).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const text of lines) {
      this.#served++;
      try {
        const { id, line } = JSON.parse(text);
        const last = this.#last.get(id) ?? 0;
        this.#demand(line > last, `telemetry of ${id} comes in order, once, after ${last}`, line);
        this.#last.set(id, line);
      } catch {
        this.#demand(false, "telemetry comes in whole lines", text);
      }
    }
  }

  /** Read = sent + dropped + queued; of what is queued, some may be on its way. */
  check({ sent, dropped, queued }: TelemetryExporter, isExact: boolean): void {
    const sum = sent + dropped + queued;
    const isWhole = isExact ? this.read === sum : this.read >= sum;
    this.#demand(isWhole, `telemetry adds up to ${this.read}`, [sent, dropped, queued]);
    const isServed = this.#served >= sent && this.#served <= sent + queued;
    this.#demand(isServed, `the server got ${sent} and perhaps ${queued}`, this.#served);
  }
}
