// What the Python side gives: a result's file (tierform.result/1) with its view (tierform.view/1), docs/view.md.
export interface Die {
  name: string
  grid: [number, number]
  size_m: [number, number]
  at: [number, number] | null
  origin_m: [number, number]
  holds: [string, number][]
  limit_K: number | null
  peak_K: number | null
  mean_K: number | null
  power_W: number | null
}
export interface Tiles {
  die: number[]
  x: number[]
  y: number[]
  holds: [string, number][][]
  temperature_K: number[] | null
  power_W: { dynamic: number[]; leakage: number[] }
  energy_J: Record<string, number[]>
  writes_per_cell: number[]
}
export interface Links {
  from: number[]
  to: number[]
  kind: string[]
  B_per_s: number[]
  B: Record<string, number[]>
}
export interface Matrix { block: string; weight: string; component: string; layers: number; replicas: number; learns: boolean }
export interface Operator {
  id: number
  stage: string
  block: string
  name: string
  kind: string
  component: string
  tiles: number[]
  times: number
  busy_s: number
  energy_J: number
  operations?: number
  memory_B: number
  network_B: number
  bound_by?: string
  kernel: string
}
export interface Limit { stage: string; seconds: number; bound_by: string; gains_s: Record<string, number> }
export interface Influence {
  constant: string
  value: number
  unit: string
  kind: string
  source: string
  latency: number
  energy: number
  area?: number // files of before have neither
  heat_K?: number | null
}
export interface Heat {
  time_s: number[]
  stage: string[]
  temperature_K: { shape: [number, number]; offset: number; scale: number; int16: string }
}
export interface View {
  schema: string
  model: string
  chip: string
  chips: number
  latency_s: number
  job: Record<string, unknown>
  job_lacks: string[]
  package: 'planar' | '2.5d' | '3d'
  ambient_K: number
  layers: { name: string; thickness_m: number }[]
  dies: Die[]
  components: Record<string, { type: string; units: number; area_m2: number; tiles: number }>
  memories: { device: string; count: number; attached: string; ports: number[] }[]
  tiles: Tiles
  links: Links
  weights: { matrices: Matrix[]; tile: number[]; matrix: number[]; layer: number[]; crossbars: number[] }
  operators: Operator[]
  heat: Heat | null
  timeline: Timeline | 'later' | null // later: the studio sends it when the page asks
  limits: { critical_path_s: Record<string, number>; stages: Limit[]; sentence: string } | null
  influence: Influence[]
  labels: Record<string, { title: string; help: string }>
}
export interface Assumption { subject: string; value: string; kind: string; source: string; note: string }
export interface Method { name: string; [key: string]: unknown }
export interface Task {
  task: string
  method?: Method
  batch?: number
  sequence?: number
  decode?: number
  steps?: number
  groups?: { sequences: number; new: number; past: number }[]
  precision: Record<string, string | null>
}
export interface Result {
  schema: string
  model: string
  chip: string
  task: Task
  fidelity: string
  runtime: string
  latency_s: number
  energy_J: number
  average_power_W: number
  area_m2: number
  chips: number
  parallelism?: { pipeline: number }
  energy_J_by_part: Record<string, number>
  energy_J_by_component: Record<string, number>
  energy_J_by_operator: Record<string, number>
  busy_s_by_resource: Record<string, number>
  utilization: Record<string, number>
  memory_footprint_B: Record<string, number>
  throughput: Record<string, number>
  network_B: number
  roofline: {
    operations_per_B_and_per_s: Record<string, [number, number]>
    peak_per_s?: Record<string, number>
    bandwidth_B_per_s?: number
  }
  thermal: {
    peak_K: number
    hottest_tile: { number: number }
    within_limits: boolean
    cross_section?: { layers: string[]; width_m: number; temperature_K: number[][]; thickness_m: number[] }
    transient?: { time_s: number[]; peak_K_by_die: Record<string, number[]> }
  } | null
  stages: { name: string; repeat: number; latency_s: number; energy_J: number; tokens: number; memory_B: number; network_B: number }[]
  assumptions: Assumption[]
  citations: { key: string; text: string; url: string }[]
  notes: string[]
  versions: { tierform: string; chip_sha256: string; inputs_sha256: string }
  view?: View | null
}
export interface Table { title: string; head: string[]; rows: string[][] }
export interface Timeline {
  end_s: number
  pieces: number
  names: string[]
  layers?: (string | number)[]
  stages: { name: string; start_s: number; end_s: number; repeat: number }[]
  rows: { resource: string; lanes: number; busy_s: number; share: string; operator: number[]; layer?: number[]; micro_batch?: number[] }[]
  any?: string
  critical?: number[]
}
export interface Engine {
  engine: string
  passed: boolean
  remarks: string[]
  sources: [string, string][]
  source: number[]
  tolerance: string[]
  case: string[]
  quantity: string[]
  unit: string[]
  reference: number[]
  ours: number[]
  relative_error: (number | null)[]
  passed_points: (boolean | null)[]
  fitted: boolean[]
}
/** A serving run: the figures of its file (tierform.service/1) and its view (tierform.service_view/1). */
export type Spread = Record<'mean' | 'p50' | 'p90' | 'p95' | 'p99', number | null>
export type Wait = 'ttft_s' | 'tpot_s' | 'e2e_s' | 'queue_s'
type Numbers = (number | null)[]
export interface ServiceFigures {
  model: string; chip: string; chips: number; replicas: number; router: string; requests_from: string
  engine: Record<string, unknown>; requests: number; counts: Record<string, number>; seconds: number
  ttft_s: Spread; tpot_s: Spread; e2e_s: Spread; queue_s: Spread
  requests_per_s: number; output_tokens_per_s: number; slo: string; goodput_per_s: number; within_slo: number
  preemptions: number; prefix_hit_share: number; energy_J: number | null; energy_J_by_component: Record<string, number>
  energy_J_per_output_token: number | null; energy_J_per_request: number | null; average_power_W: number | null
  busy_share: number; steps: number; capacity: [string, string][]; notes: string[]
  // Of replicas over time, drafts and what waits in a host, where there are some.
  pools?: { chip: string; replicas: number; requests: number; tokens: number; energy_J: number }[]; failures?: [number, number, number][]
  prefill_replicas?: number; moved_kv_tokens?: number; replicas_over_time?: [number, number][]; swapped_kv_tokens?: number
  drafted_tokens?: number; accepted_share?: number; adapters_loaded?: number; perplexity?: number; tokens_by_level?: Record<string, number>
  lifetime_s?: number; writes_per_cell?: number
}
export interface OverTime {
  end_s: number; pieces?: number; arrivals_per_s: Numbers; finished_per_s: Numbers; waiting: Numbers; running: Numbers; output_tokens_per_s: Numbers
  kv_share: Numbers | null; busy_share: Numbers | null; power_W: Numbers | null
  heat: { time_s: number[]; peak_K?: number[]; clock?: number[] } | null
}
export interface ServiceView {
  slo: Record<'ttft_s' | 'tpot_s' | 'e2e_s', number | null>
  keeps: Record<string, number | null>
  shares: Record<Wait, Numbers>
  arrivals: { rate_per_s: number | null; last_s: number; waiting_at_last: number; grows: boolean }
  waits: { time_s: number[]; ttft_s: { p50: Numbers; p95: Numbers }; tpot_s: { p50: Numbers; p95: Numbers } }
  over_time: OverTime
}
export interface LoadPoint {
  factor: number; offered_per_s: number; within: number; goodput_per_s: number; grows: boolean
  ttft_s: Spread; tpot_s: Spread; e2e_s: Spread; energy_J_per_output_token: number | null; average_power_W: number | null
}
export interface Service {
  id: string; name: string; file: string; service: ServiceFigures | null; view: ServiceView | null; by: string | null
  search: { within: number; best: { offered_per_s: number; within: number; goodput_per_s: number } | null; tried: LoadPoint[] } | null
}
/** A study: the view of its file (tierform.study_view/1), columns as base64. */
export type Column = { f4: string } | { u2: string }
export interface Parameter { name: string; path: string; choices: (string | number | boolean | null)[] | null; low: number; high: number; whole: boolean; log: boolean; unit: string; ordered: boolean }
export interface StudyView {
  name: string; file: string; space_file: string; claim: string; strategy: string; budget: number; size: number | null
  counts: { waiting: number; leased: number; done: number; feasible: number; shown: number }
  job: Record<string, unknown>
  objectives: { figure: string; maximize: boolean }[]
  limits: { figure: string; most: number | null; least: number | null }[]
  units: Record<string, string>
  parameters: Parameter[]
  points: { number: Column; figures: Record<string, Column>; chosen: Record<string, Column>; violation: Column; reason: Column }
  reasons: string[]; front: number[]; knee: number | null; hypervolume: number; nearest: { place: number | null; reason: string } | null
}
export interface Study { id: string; name: string; file: string; view: StudyView; designs: Record<string, Run> }
/** A run as the pages hold it. */
export interface Run { id: string; name: string; file: string; live: boolean; result: Result; tables: Table[] }
export interface Problem { message: string; file?: string | null; line?: number | null; key?: string | null; near?: string | null; fix?: string | null }
export interface Content {
  schema: 'tierform.pages/1'
  version: string
  exported: boolean
  folder: string
  runs: Run[]
  others: string[]
  problems: Problem[]
  ledger: Engine[]
  services: Service[]
  studies: Study[]
  first: string
}
