// Nothing was opened: three examples to begin with, what was read, and how to open a result.
import { useState } from 'preact/hooks'
import { openFile, start } from '../jobs'
import { Problems } from '../parts'
import { go } from '../route'
import type { Content, Problem, Run } from '../types'
import { told } from '../words'

const EXAMPLE = { schema: 'tierform.job/1', model: 'bert-large', chip: 'atleus', task: { kind: 'finetuning', method: { kind: 'lora', rank: 32 }, batch: 8 }, thermal: 'steady' }
const tier = (y: number) => `M60 ${y}l44 22-44 22-44-22z`

export function Start({ given, add }: { given: Content; add: (run: Run) => void }) {
  const [running, setRunning] = useState(false)
  const [problems, setProblems] = useState<Problem[]>([])
  const show = (run: Run) => { add(run); go('chip', { run: run.id }) }
  const simulate = () => {
    setRunning(true); setProblems([])
    start({ kind: 'run', job: EXAMPLE }, (event) => {
      if (event.event === 'result') show(event.run)
      if (event.event === 'problem') setProblems(event.problems)
      if (event.event === 'end' || event.event === 'problem' || event.event === 'stopped') setRunning(false)
    })
  }
  return (
    <section class="empty start">
      <h1>What do you want to know?</h1>
      {given.folder && <p>Read {given.folder}: {given.runs.length} results, {given.others.length} other {given.others.length === 1 ? 'file' : 'files'}.</p>}
      {given.problems.length > 0 && <Broken problems={given.problems} />}
      {problems.length > 0 && <Broken problems={problems} />}
      {!given.exported && <div class="examples">
        <button type="button" disabled={running} onClick={simulate}><svg viewBox="0 0 120 84" aria-hidden="true">{[36, 26, 16, 6].map((y) => <path d={tier(y)} fill="var(--panel)" stroke="var(--accent)" stroke-width="1.5" />)}</svg><b>Fine-tune BERT-large on four tiers</b><span>{running ? 'Running' : 'Where is it hot, and what limits it?'}</span></button>
        <button type="button" onClick={() => go('serving', { model: 'llama-3.1-8b', chip: 'h100', tensor: '2' })}><svg viewBox="0 0 120 84" aria-hidden="true"><path d="M12 8v64h100M12 66C50 64 78 60 90 42S104 12 108 10" fill="none" stroke="var(--accent)" stroke-width="1.5" /><path d="M12 36h98" stroke="var(--bar)" stroke-dasharray="4 4" /></svg><b>Serve Llama on two H100</b><span>How many users, and how fast?</span></button>
        <button type="button" onClick={() => go('fit', { model: 'llama-3.1-70b', chip: 'h100', chips: '8' })}><svg viewBox="0 0 120 84" aria-hidden="true">{[[10, 96], [34, 62], [58, 44]].map(([y, w]) => <rect x="8" y={y} width={w} height="16" fill="none" stroke="var(--accent)" stroke-width="1.5" />)}<path d="M88 4v76" stroke="var(--ink)" stroke-width="1.5" /></svg><b>Will 70B fit?</b><span>On eight H100, and in which way is it cheapest?</span></button>
      </div>}
      <p>Or open a result: {!given.exported && <>drop its file here, or <label class="link file">choose it<input type="file" accept=".json,application/json" onChange={(event) => { const file = event.currentTarget.files?.[0]; setProblems([]); if (file) void openFile(file, show, setProblems) }} /></label>. </>}Write one with</p>
      <pre tabIndex={0}>{'tierform simulate bert-large --chip atleus \\\n  --task finetune --method lora --json run.json\ntierform studio run.json'}</pre>
      {given.others.length > 0 && <details><summary>Other files</summary><ul class="plainlist">{given.others.map((name) => <li>{name}</li>)}</ul></details>}
    </section>
  )
}
/** Problems by their file and fix: the first three of each. */
export function Broken({ problems }: { problems: Problem[] }) {
  const groups = new Map<string, Problem[]>()
  for (const one of problems) { const key = `${one.file ?? ''}\n${one.fix ?? ''}`; groups.set(key, [...(groups.get(key) ?? []), one]) }
  return <Problems title="What could not be read" lines={[...groups.values()].map((group) => <>
    {group[0]!.file && <b>{group[0]!.file}</b>} {group.slice(0, 3).map((one) => told({ ...one, file: null })).join('; ')}{group.length > 3 && `; and ${group.length - 3} more`}
    {group[0]!.fix && <div class="soft">{group[0]!.fix}</div>}</>)} />
}
