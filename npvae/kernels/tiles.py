"""Parts of a matrix product that stay in a processor's registers: tiles, built from vector instructions.

A processor multiplies faster than it loads, so each number that is loaded has to be used several times. A core with 32 vector
registers has room for 24 sums. As 8 rows times 3 vectors of columns of a product A B they grow, for each k, by

    A[i, k] · B[k, j ... j + 3 vectors]        8 numbers and 3 vectors loaded, 24 products of vectors

and go to memory once, when the last k is done. LLVM does not find this by itself: it is written here in LLVM's own language,
with the 24 sums as variables of the loop over k (φ nodes). Three tiles are needed:

    product_tile   A B, and Aᵀ B, which only steps differently through A
    dot_tile       A Bᵀ: both factors have k along their rows, so each lane of a vector has a sum of its own, and the lanes are
                   added up at the end; 4 rows times 6
    combine_tile   rows of B, weighted and added: the product of a sparse row with B

Every sum has one order, that of k: the result does not depend on how a product is cut into tiles. Processors whose vectors
differ in width differ by rounding in `dot_tile` alone. Limits and measurements: `npvae.kernels.dense`.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 8  # rows of B that are fetched in advance: they lie further apart than the processor guesses by itself
INT, LANE = ir.IntType(64), ir.IntType(32)


def vectors_of(context):
    """Bytes of a vector, and how many of them the registers hold, of the processor that is compiled for."""
    triple, _, features = context.codegen().magic_tuple()
    if "+avx512f" in features:
        return 64, 32
    return (32 if "+avx2" in features else 16), (16 if triple.startswith("x86") else 32)


@intrinsic
def lanes_of(_, array):
    """How many numbers of the array's type a vector holds, a constant in compiled code."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.int64, vectors_of(context)[0] * 8 // array.dtype.bitwidth)

    return types.int64(array), generate


@intrinsic
def has_32_registers(_):
    """Whether 24 sums stay in registers, a constant in compiled code."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.boolean, vectors_of(context)[1] == 32)

    return types.boolean(), generate


class Code:
    """The instructions of a tile of numbers of one type."""

    def __init__(self, context, builder, dtype):
        self.context, self.builder, self.n_bytes = context, builder, dtype.bitwidth // 8
        self.lanes = vectors_of(context)[0] // self.n_bytes
        self.vector = ir.VectorType(context.get_value_type(dtype), self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        multiply_add = ir.FunctionType(self.vector, [self.vector] * 3)
        self.multiply_add = self.function(f"llvm.fmuladd.v{self.lanes}f{dtype.bitwidth}", multiply_add)

    def function(self, name, kind):
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

    def start(self, array_type, array, index):
        """A pointer to the element `index` of a flat array."""
        return self.at(self.context.make_array(array_type)(self.context, self.builder, array).data, index)

    def at(self, pointer, index):
        return self.builder.gep(pointer, [INT(index) if isinstance(index, int) else index])

    def load(self, pointer, v=0):
        """The vector v of those that begin here, wherever that is."""
        place = self.at(pointer, v * self.lanes)
        return self.builder.load(self.builder.bitcast(place, self.vector.as_pointer()), align=self.n_bytes)

    def store(self, value, pointer, v=0):
        place = self.at(pointer, v * self.lanes)
        self.builder.store(value, self.builder.bitcast(place, self.vector.as_pointer()), align=self.n_bytes)

    def everywhere(self, number):
        """A number, of any type, in all lanes of a vector."""
        undefined = ir.Constant(ir.VectorType(number.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, number, LANE(0))
        return self.lanes_of(first, [0] * self.lanes)

    def lanes_of(self, vector, numbers):
        """These lanes of a vector, as a vector."""
        mask = ir.Constant(ir.VectorType(LANE, len(numbers)), list(numbers))
        return self.builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

    def added_up(self, vector):
        """The sum of all lanes: half of them onto the other half until one is left."""
        n = vector.type.count
        while n > 1:
            n //= 2
            vector = self.builder.fadd(self.lanes_of(vector, range(n)), self.lanes_of(vector, range(n, 2 * n)))
        return self.builder.extract_element(vector, LANE(0))

    def is_last(self, n):
        """Which lanes of a vector are the last n."""
        numbers = ir.Constant(ir.VectorType(INT, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed(">=", numbers, self.everywhere(self.builder.sub(INT(self.lanes), n)))

    def only_last(self, n):
        """A function that makes all lanes of a vector 0 but the last n."""
        is_last = self.is_last(n)
        return lambda vector: self.builder.select(is_last, vector, self.zero)

    def add_product(self, total, a, b):
        return self.builder.call(self.multiply_add, [a, b, total])

    def fetch(self, pointer, n_vectors, to_write=False):
        """Begin to bring these vectors into the nearest cache; to_write: and take them from the other cores' caches."""
        for v in range(n_vectors):
            place = self.builder.bitcast(self.at(pointer, v * self.lanes), ir.IntType(8).as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [place.type, LANE, LANE, LANE])
            self.builder.call(self.function("llvm.prefetch.p0", kind), [place, LANE(int(to_write)), LANE(3), LANE(1)])

    def loop(self, n, values, step):
        """values, replaced n times by step(values): lists of LLVM values."""
        builder, before = self.builder, self.builder.block
        head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        count, current = builder.phi(INT), [builder.phi(value.type) for value in values]
        builder.cbranch(builder.icmp_signed("<", count, n), body, end)
        builder.position_at_end(body)
        following = [builder.add(count, INT(1)), *step(current)]
        for phi, first, later in zip([count, *current], [INT(0), *values], following):
            phi.add_incoming(first, before)
            phi.add_incoming(later, builder.block)
        builder.branch(head)
        builder.position_at_end(end)
        return current


def product_tile(n_rows, n_vectors):
    """tile(a, a_start, a_row, a_step, b, b_start, b_step, out, next_out, out_start, out_row, n): a tile of out = A B.

    The arrays are flat. A[i, k] is a[a_start + i a_row + k a_step], row k of B begins at b_start + k b_step, and row i of the
    tile is written to out_start + i out_row; k runs to n. `next_out`, of the size of out, will be written to where out is now:
    while the tile is computed, that is taken from the caches of other cores, which have read it.
    """

    @intrinsic
    def tile(_, a, a_start, a_row, a_step, b, b_start, b_step, out, next_out, out_start, out_row, n):
        def generate(context, builder, signature, arguments):
            a_, a_start, a_row, a_step, b_, b_start, b_step, out_, next_out_, out_start, out_row, n = arguments
            code = Code(context, builder, out.dtype)
            rows = [builder.mul(a_row, INT(i)) for i in range(n_rows)]
            ahead = builder.mul(b_step, INT(AHEAD))

            def step(values):
                *sums, a_k, b_k = values
                b_row = [code.load(b_k, v) for v in range(n_vectors)]
                code.fetch(code.at(b_k, ahead), n_vectors)
                for i in range(n_rows):
                    factor = code.everywhere(builder.load(code.at(a_k, rows[i])))
                    for v in range(n_vectors):
                        sums[i * n_vectors + v] = code.add_product(sums[i * n_vectors + v], factor, b_row[v])
                return [*sums, code.at(a_k, a_step), code.at(b_k, b_step)]

            starts = code.start(a, a_, a_start), code.start(b, b_, b_start)
            places = [builder.add(out_start, builder.mul(out_row, INT(i))) for i in range(n_rows)]
            for place in places:
                code.fetch(code.start(next_out, next_out_, place), n_vectors, to_write=True)
            sums = code.loop(n, [code.zero] * (n_rows * n_vectors) + [*starts], step)
            for i, place in enumerate(places):
                row = code.start(out, out_, place)
                for v in range(n_vectors):
                    code.store(sums[i * n_vectors + v], row, v)
            return context.get_dummy_value()

        i = types.int64
        return types.none(a, i, i, i, b, i, i, out, next_out, i, i, i), generate

    return tile


def dot_tile(n_rows, n_columns):
    """tile(a, a_start, b, b_start, n, out, out_start, out_row): a tile of out = A Bᵀ.

    The arrays are flat; the rows of A and of B, n numbers each, lie one after the other from a_start and b_start on, and row i
    of the tile is written to out_start + i out_row. n is at least the lanes of a vector.
    """

    @intrinsic
    def tile(_, a, a_start, b, b_start, n, out, out_start, out_row):
        def generate(context, builder, signature, arguments):
            a_, a_start, b_, b_start, n, out_, out_start, out_row = arguments
            code = Code(context, builder, out.dtype)
            lanes = INT(code.lanes)
            rest, n_whole = builder.srem(n, lanes), builder.sdiv(n, lanes)
            rows = [builder.mul(n, INT(i)) for i in range(max(n_rows, n_columns))]

            def add_products(sums, a_k, b_k, kept=lambda vector: vector):
                sums = list(sums)
                a_rows = [kept(code.load(code.at(a_k, rows[i]))) for i in range(n_rows)]
                for j in range(n_columns):
                    b_row = code.load(code.at(b_k, rows[j]))
                    for i in range(n_rows):
                        sums[i * n_columns + j] = code.add_product(sums[i * n_columns + j], a_rows[i], b_row)
                return sums

            def step(values):
                *sums, a_k, b_k = values
                return [*add_products(sums, a_k, b_k), code.at(a_k, lanes), code.at(b_k, lanes)]

            def last_step(sums):  # the rest is less than a vector: the last vector of a row, but for what was added already
                end = builder.sub(n, lanes)
                return add_products(sums, code.at(a_0, end), code.at(b_0, end), code.only_last(rest))

            a_0, b_0 = code.start(a, a_, a_start), code.start(b, b_, b_start)
            *sums, _, _ = code.loop(n_whole, [code.zero] * (n_rows * n_columns) + [a_0, b_0], step)
            sums = code.loop(builder.zext(builder.icmp_signed(">", rest, INT(0)), INT), sums, last_step)
            for i in range(n_rows):
                row = code.start(out, out_, builder.add(out_start, builder.mul(out_row, INT(i))))
                for j in range(n_columns):
                    builder.store(code.added_up(sums[i * n_columns + j]), code.at(row, j))
            return context.get_dummy_value()

        i = types.int64
        return types.none(a, i, b, i, i, out, i, i), generate

    return tile


def combine_tile(n_vectors):
    """tile(columns, values, first, end, b, b_start, b_row, out, next_out, out_start, is_added, n_last): n_vectors vectors of a
    weighted sum of rows.

    out[out_start ...] = Σ_k values[k] b[b_start + columns[k] b_row ...], k from first to end; is_added: += in place of =. Of
    each vector only the last n_last numbers are written. `next_out` as for `product_tile`.
    """

    @intrinsic
    def tile(_, columns, values, first, end, b, b_start, b_row, out, next_out, out_start, is_added, n_last):
        def generate(context, builder, signature, arguments):
            columns_, values_, first, end, b_, b_start, b_row, out_, next_out_, out_start, is_added, n_last = arguments
            code = Code(context, builder, out.dtype)
            b_0, out_0 = code.start(b, b_, b_start), code.start(out, out_, out_start)
            found = [code.load(out_0, v) for v in range(n_vectors)]
            before = [builder.select(is_added, vector, code.zero) for vector in found]
            code.fetch(code.start(next_out, next_out_, out_start), n_vectors, to_write=True)

            def step(current):
                *sums, column, value = current
                row = code.at(b_0, builder.mul(builder.sext(builder.load(column), INT), b_row))
                factor = code.everywhere(builder.load(value))
                sums = [code.add_product(total, factor, code.load(row, v)) for v, total in enumerate(sums)]
                return [*sums, code.at(column, 1), code.at(value, 1)]

            starts = code.start(columns, columns_, first), code.start(values, values_, first)
            *sums, _, _ = code.loop(builder.sub(end, first), [*before, *starts], step)
            for v, total in enumerate(sums):
                code.store(builder.select(code.is_last(n_last), total, found[v]), out_0, v)
            return context.get_dummy_value()

        i = types.int64
        return types.none(columns, values, i, i, b, i, i, out, next_out, i, types.boolean, i), generate

    return tile
