// All other figures of the run as tables.
import type { Run } from '../types'

export function FiguresPage({ run }: { run: Run }) {
  return (
    <div class="page" tabIndex={0} role="region" aria-label="The page">
      {run.result.notes.length > 0 && <section><h2>Notes</h2><ul class="notes">{run.result.notes.map((note) => <li>{note}</li>)}</ul></section>}
      <div class="tables">
        {run.tables.map((table) => (
          <section key={table.title} class={(table.rows[0]?.length ?? 0) > 4 ? 'wide' : ''}>
            <h2>{table.title}</h2>
            <div class="scroll" tabIndex={0} role="region" aria-label={table.title}><table class="grid">
              {table.head.some(Boolean) && <thead><tr>{table.head.map((cell, i) => <th scope="col" class={i ? 'n' : ''}>{cell}</th>)}</tr></thead>}
              <tbody>{table.rows.map((row) => <tr>{row.map((cell, i) => (i ? <td class={row.length === 2 ? 'n told' : 'n'}>{cell}</td> : <th scope="row">{cell}</th>))}</tr>)}</tbody>
            </table></div>
          </section>
        ))}
      </div>
    </div>
  )
}
