'use strict';
// The table of every image: sorted by a column, filtered, one page at a time.
(() => {
  const PAGE = 25;
  const get = (id) => document.getElementById(id);
  const {columns, rows} = JSON.parse(get('listing-data').textContent);
  const table = get('listing-table'), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const place = Object.fromEntries(columns.map((column, k) => [column.key, k]));
  const filters = ['dataset', 'condition', 'run'];
  const collator = new Intl.Collator('en', {numeric: true});
  const state = {page: 0, column: null, descending: false};

  function written(value, column) {
    if (value === null) return column.digits === undefined ? '' : '–';
    if (column.digits === undefined) return value;
    if (value === 'inf') return '∞';
    const text = Math.abs(value).toFixed(column.digits);
    const sign = value < 0 ? '−' : column.signed ? '+' : '';
    return sign + text;
  }

  function compare(a, b) {
    const x = a[state.column], y = b[state.column];
    if (x === null || y === null) return (x === null) - (y === null);  // what is missing comes last either way
    const number = (value) => value === 'inf' ? Infinity : value;
    const order = columns[state.column].digits === undefined ? collator.compare(x, y)
      : number(x) === number(y) ? 0 : number(x) - number(y);
    return state.descending ? -order : order;
  }

  function chosen() {
    const part = get('filter-image').value.trim().toLowerCase();
    const wanted = filters.map((key) => [place[key], get(`filter-${key}`).value]).filter(([, value]) => value !== '');
    const found = rows.filter((row) => row[place.image].toLowerCase().includes(part)
      && wanted.every(([k, value]) => row[k] === value));
    return state.column === null ? found : found.sort(compare);
  }

  function line(row) {
    const element = document.createElement('tr');
    row.forEach((value, k) => {
      const cell = document.createElement(k === 0 ? 'th' : 'td');
      if (k === 0) cell.scope = 'row';
      if (columns[k].digits !== undefined) cell.className = 'number';
      cell.textContent = written(value, columns[k]);
      element.append(cell);
    });
    return element;
  }

  function show() {
    const found = chosen(), last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    state.page = Math.min(state.page, last);
    const start = state.page * PAGE, end = Math.min(start + PAGE, found.length);
    body.replaceChildren(...found.slice(start, end).map(line));
    get('shown').textContent = found.length ? `${start + 1} to ${end} of ${found.length}` : 'none';
    get('previous').disabled = state.page === 0;
    get('next').disabled = state.page === last;
  }

  function sortBy(column) {
    state.descending = state.column === column && !state.descending;
    state.column = column;
    state.page = 0;
    heads.forEach((head, k) => {
      if (k === column) head.setAttribute('aria-sort', state.descending ? 'descending' : 'ascending');
      else head.removeAttribute('aria-sort');
    });
    show();
  }

  function filter() {
    state.page = 0;
    show();
  }

  function turn(by) {
    state.page += by;
    show();
  }

  for (const key of filters) {
    const names = [...new Set(rows.map((row) => row[place[key]]))];
    get(`filter-${key}`).append(...names.map((name) => new Option(name, name)));
    get(`filter-${key}`).addEventListener('change', filter);
  }
  get('filter-image').addEventListener('input', filter);
  heads.forEach((head, k) => head.firstElementChild.addEventListener('click', () => sortBy(k)));
  get('previous').addEventListener('click', () => turn(-1));
  get('next').addEventListener('click', () => turn(1));
  get('listing').hidden = false;
  show();
})();
