/* kernels_onednn.c: the dense layers and the attention of the image tower on oneDNN, 2.6 to 3.x.
 *
 * A primitive is machine code for one shape, end and precision.  Each is made once, when first asked
 * for, and kept until the process ends; layers of one shape share it.  So a picture that is scored
 * before a sandbox closes has made all code that later pictures need: none is made afterwards.
 *
 * Weights are copied once into the blocked order that the primitive wants, one pool for a model; or taken
 * from a pool that an earlier process filled, whose blocks' tags name that order.
 *
 * oneDNN's threads are those of OpenMP.  onednn_each() borrows them for the loops between products, in
 * fixed parts, so results do not depend on who is faster.
 *
 * Nothing here decides: whatever fails is said to the caller, who has another way.
 */
#include <limits.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>

#include <oneapi/dnnl/dnnl.h>

#include "base/mem.h"

#include "model/kernels_int8.h"
#include "model/kernels_math.h"
#include "model/kernels_onednn.h"

/* ---- what differs between 2.x and 3.x ---- */

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t md_in; /* NULL allowed where a thing is optional */
typedef dnnl_memory_desc_t md_own;
#define MD(own) (own)
#else
typedef const dnnl_memory_desc_t *md_in;
typedef dnnl_memory_desc_t md_own;
#define MD(own) (&(own))
#endif

static bool md_strided(md_own *ret, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
		       const dnnl_dims_t strides)
{
#if DNNL_VERSION_MAJOR >= 3
	return dnnl_memory_desc_create_with_strides(ret, rank, dims, type, strides) == dnnl_success;
#else
	return dnnl_memory_desc_init_by_strides(ret, rank, dims, type, strides) == dnnl_success;
#endif
}

static bool md_any(md_own *ret, int rank, const dnnl_dims_t dims, dnnl_data_type_t type)
{
#if DNNL_VERSION_MAJOR >= 3
	return dnnl_memory_desc_create_with_tag(ret, rank, dims, type, dnnl_format_tag_any) == dnnl_success;
#else
	return dnnl_memory_desc_init_by_tag(ret, rank, dims, type, dnnl_format_tag_any) == dnnl_success;
#endif
}

static void md_release(md_own *md)
{
#if DNNL_VERSION_MAJOR >= 3
	(void)dnnl_memory_desc_destroy(*md);
#else
	(void)md; /* a plain struct */
#endif
}

/* A number for the order in which a matrix lies: equal orders, equal numbers. */
static uint64_t md_order(md_in md)
{
	uint64_t ret = 1;
	int n_inner = 0;

#if DNNL_VERSION_MAJOR >= 3
	const dnnl_dim_t *strides = NULL, *inner = NULL, *which = NULL;

	if (dnnl_memory_desc_query(md, dnnl_query_inner_nblks_s32, &n_inner) != dnnl_success ||
	    dnnl_memory_desc_query(md, dnnl_query_strides, &strides) != dnnl_success ||
	    dnnl_memory_desc_query(md, dnnl_query_inner_blks, &inner) != dnnl_success ||
	    dnnl_memory_desc_query(md, dnnl_query_inner_idxs, &which) != dnnl_success)
		return 0;
#else
	const dnnl_dim_t *strides = md->format_desc.blocking.strides;
	const dnnl_dim_t *inner = md->format_desc.blocking.inner_blks, *which = md->format_desc.blocking.inner_idxs;

	n_inner = md->format_desc.blocking.inner_nblks;
#endif
	for (int i = 0; i < 2; i++) /* of a matrix */
		ret = ret * 1000003 + (uint64_t)strides[i];
	for (int i = 0; i < n_inner; i++)
		ret = (ret * 1000003 + (uint64_t)inner[i]) * 1000003 + (uint64_t)which[i];
	return ret;
}

static bool matmul_describe(dnnl_primitive_desc_t *ret, md_in a, md_in b, md_in bias, md_in c,
			    dnnl_primitive_attr_t attr, dnnl_engine_t engine)
{
#if DNNL_VERSION_MAJOR >= 3
	return dnnl_matmul_primitive_desc_create(ret, engine, a, b, bias, c, attr) == dnnl_success;
#else
	dnnl_matmul_desc_t op;

	return dnnl_matmul_desc_init(&op, a, b, bias, c) == dnnl_success &&
	       dnnl_primitive_desc_create(ret, &op, attr, engine, NULL) == dnnl_success;
#endif
}

static bool end_append(dnnl_post_ops_t ops, enum layer_end end)
{
#if DNNL_VERSION_MAJOR >= 3
	switch (end) {
	case LAYER_PLAIN: return true;
	case LAYER_GELU: return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_gelu_erf, 0, 0) == dnnl_success;
	case LAYER_RELU: return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, 0, 0) == dnnl_success;
	case LAYER_ADD: return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef) == dnnl_success;
	}
#else
	switch (end) {
	case LAYER_PLAIN: return true;
	case LAYER_GELU: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_gelu_erf, 0, 0) == dnnl_success;
	case LAYER_RELU: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0) == dnnl_success;
	case LAYER_ADD: return dnnl_post_ops_append_sum(ops, 1) == dnnl_success;
	}
#endif
	return false;
}

/* ---- the engine, once ---- */

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static bool ready(void)
{
	static bool tried, made;

	if (!tried) {
		tried = true;
		made = dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
		       dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success;
	}
	return made;
}

bool onednn_has(enum kernels_precision precision)
{
	const unsigned bf16 = dnnl_cpu_isa_avx512_core_bf16; /* a set of bits; AMX contains it */
	const unsigned vnni = dnnl_cpu_isa_avx512_core_vnni;
	unsigned wanted = precision == KERNELS_BF16 ? bf16 : precision == KERNELS_INT8 ? vnni : 0;

	return ready() && ((unsigned)dnnl_get_effective_cpu_isa() & wanted) == wanted;
}

void onednn_set_threads(unsigned n)
{
	omp_set_dynamic(0);
	omp_set_num_threads(n > INT_MAX ? INT_MAX : (int)n);
}

const char *onednn_core(void)
{
	static const struct {
		unsigned isa;
		const char *name;
	} names[] = {
		{ dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx" },
		{ dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16" },
		{ dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni" },
		{ dnnl_cpu_isa_avx512_core, "avx512_core" },
		{ dnnl_cpu_isa_avx2, "avx2" },
	};
	static char text[64];
	const dnnl_version_t *v = dnnl_version();
	unsigned isa = dnnl_get_effective_cpu_isa();
	const char *name = "sse41";

	for (size_t i = ARRAY_SIZE(names); i-- > 0;)
		if ((isa & names[i].isa) == names[i].isa)
			name = names[i].name;
	(void)snprintf(text, sizeof(text), "oneDNN %d.%d.%d %s", v->major, v->minor, v->patch, name);
	return text;
}

void onednn_each(size_t n, void (*f)(void *arg, size_t from, size_t to), void *arg)
{
#pragma omp parallel
	{
		size_t i = (size_t)omp_get_thread_num(), all = (size_t)omp_get_num_threads();

		f(arg, n * i / all, n * (i + 1) / all);
	}
}

bool onednn_matmul(bool transpose, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
		   float beta, float *c, size_t ldc, size_t n, size_t m, size_t k)
{
	return dnnl_sgemm('N', transpose ? 'T' : 'N', (dnnl_dim_t)n, (dnnl_dim_t)m, (dnnl_dim_t)k, alpha, a,
			  (dnnl_dim_t)lda, b, (dnnl_dim_t)ldb, beta, c, (dnnl_dim_t)ldc) == dnnl_success;
}

/* ---- primitives ---- */

static dnnl_data_type_t type_of(enum kernels_precision precision)
{
	return precision == KERNELS_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* A product of one shape and the arguments that it is run with.  int8: plain sums, no bias, no end. */
struct product {
	struct product *next;
	size_t n, in, out;
	enum kernels_precision precision;
	enum layer_end end;
	bool bias;
	dnnl_primitive_t primitive; /* NULL: oneDNN cannot */
	dnnl_memory_t x, y;	    /* [n, in], [n, out]: the places are set before each run */
	dnnl_primitive_desc_t pd;
	struct int8_rows *int8; /* or NULL */
};

/* The rows of an int8 product before and after. */
struct int8_rows {
	uint8_t *x;    /* [n, in] */
	float *scale;  /* [n] */
	int *zero;     /* [n] */
	int32_t *sums; /* [n, out] of x * q, the zeros still in */
};

/* The copy of one layer's weights. */
struct kernels_packed {
	dnnl_memory_t w, b;
	float *scale;  /* [out] int8: of each column of w */
	int32_t *sums; /* [out] int8: of each column of w */
};

static bool set_place(dnnl_memory_t memory, const void *p)
{
	return dnnl_memory_set_data_handle(memory, (void *)(uintptr_t)p) == dnnl_success;
}

static bool memory_at(dnnl_memory_t *ret, md_in md, const void *p)
{
	return dnnl_memory_create(ret, md, engine, (void *)(uintptr_t)p) == dnnl_success;
}

static bool int8_rows_make(struct product *p)
{
	struct int8_rows *r = xcalloc(1, sizeof(*r));

	*r = (struct int8_rows){ .x = malloc(p->n * p->in), .scale = malloc(p->n * sizeof(float)),
				 .zero = malloc(p->n * sizeof(int)), .sums = malloc(p->n * p->out * sizeof(int32_t)) };
	p->int8 = r; /* products are kept, and this with them */
	return r->x != NULL && r->scale != NULL && r->zero != NULL && r->sums != NULL;
}

static bool product_make(struct product *p, md_in w /* NULL: oneDNN may choose the order */)
{
	const dnnl_dims_t x_dims = { (dnnl_dim_t)p->n, (dnnl_dim_t)p->in }, x_strides = { (dnnl_dim_t)p->in, 1 };
	const dnnl_dims_t y_dims = { (dnnl_dim_t)p->n, (dnnl_dim_t)p->out }, y_strides = { (dnnl_dim_t)p->out, 1 };
	const dnnl_dims_t w_dims = { (dnnl_dim_t)p->in, (dnnl_dim_t)p->out };
	const dnnl_dims_t b_dims = { 1, (dnnl_dim_t)p->out };
	bool int8 = p->precision == KERNELS_INT8;
	dnnl_data_type_t type = type_of(p->precision);
	dnnl_data_type_t y_type = int8 ? dnnl_s32 : p->end == LAYER_ADD ? dnnl_f32 : type;
	dnnl_primitive_attr_t attr = NULL;
	dnnl_post_ops_t ops = NULL;
	md_own x, y, b, any;
	bool good;

	if (int8 && !int8_rows_make(p))
		return false;
	if (!md_strided(&x, 2, x_dims, int8 ? dnnl_u8 : type, x_strides) || !md_strided(&y, 2, y_dims, y_type, y_strides) ||
	    !md_strided(&b, 2, b_dims, dnnl_f32, y_strides) || !md_any(&any, 2, w_dims, int8 ? dnnl_s8 : type))
		return false; /* only out of memory: leaks a few bytes on the way to the other backend */
	good = dnnl_primitive_attr_create(&attr) == dnnl_success && dnnl_post_ops_create(&ops) == dnnl_success &&
	       end_append(ops, p->end) && dnnl_primitive_attr_set_post_ops(attr, ops) == dnnl_success &&
	       matmul_describe(&p->pd, MD(x), w != NULL ? w : MD(any), p->bias ? MD(b) : NULL, MD(y), attr,
			       engine) &&
	       dnnl_primitive_create(&p->primitive, p->pd) == dnnl_success && memory_at(&p->x, MD(x), NULL) &&
	       memory_at(&p->y, MD(y), NULL);
	(void)dnnl_post_ops_destroy(ops);
	(void)dnnl_primitive_attr_destroy(attr);
	md_release(&x);
	md_release(&y);
	md_release(&b);
	md_release(&any);
	return good;
}

/* The product of that shape, made if it is new; NULL when oneDNN cannot. */
static struct product *product_of(const struct layer *l, size_t n, enum kernels_precision precision,
				  enum layer_end end, md_in w)
{
	static struct product *products;
	bool int8 = precision == KERNELS_INT8, bias = l->b != NULL && !int8;
	struct product *p;

	end = int8 ? LAYER_PLAIN : end;
	for (p = products; p != NULL; p = p->next)
		if (p->n == n && p->in == l->in && p->out == l->out && p->precision == precision &&
		    p->end == end && p->bias == bias)
			return p->primitive != NULL ? p : NULL;
	p = xcalloc(1, sizeof(*p));
	*p = (struct product){ .next = products, .n = n, .in = l->in, .out = l->out, .precision = precision,
			       .end = end, .bias = bias };
	products = p;
	if (product_make(p, w))
		return p;
	p->primitive = NULL; /* asked once is enough */
	return NULL;
}

static md_in md_of(dnnl_memory_t memory)
{
	md_in md = NULL;

	(void)dnnl_memory_get_memory_desc(memory, &md);
	return md;
}

/* w [out, in] of that type -> the order and the type of `to`. */
static bool reorder(const struct layer *l, const void *w, dnnl_data_type_t type, dnnl_memory_t to)
{
	const dnnl_dims_t dims = { (dnnl_dim_t)l->in, (dnnl_dim_t)l->out }, strides = { 1, (dnnl_dim_t)l->in };
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t primitive = NULL;
	dnnl_memory_t from = NULL;
	md_own md;
	bool good;

	if (!md_strided(&md, 2, dims, type, strides))
		return false;
	good = memory_at(&from, MD(md), w) &&
	       dnnl_reorder_primitive_desc_create(&pd, MD(md), engine, md_of(to), engine, NULL) == dnnl_success &&
	       dnnl_primitive_create(&primitive, pd) == dnnl_success;
	if (good) {
		dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, to } };

		good = dnnl_primitive_execute(primitive, stream, 2, args) == dnnl_success &&
		       dnnl_stream_wait(stream) == dnnl_success;
	}
	(void)dnnl_primitive_destroy(primitive);
	(void)dnnl_primitive_desc_destroy(pd);
	(void)dnnl_memory_destroy(from);
	md_release(&md);
	return good;
}

static bool reorder_int8(const struct layer *l, struct kernels_packed *packed, struct pool *pool)
{
	CLEANUP(free) int8_t *q = malloc(l->out * l->in); /* [out, in] */

	packed->scale = pool_take(pool, l->out * sizeof(float), 1);
	packed->sums = pool_take(pool, l->out * sizeof(int32_t), 1);
	if (q == NULL || packed->scale == NULL || packed->sums == NULL)
		return false;
	if (pool_filled(pool))
		return true;
	for (size_t o = 0; o < l->out; o++) {
		packed->scale[o] = int8_column(l->w + o * l->in, q + o * l->in, l->in);
		packed->sums[o] = 0;
		for (size_t i = 0; i < l->in; i++)
			packed->sums[o] += q[o * l->in + i];
	}
	return reorder(l, q, dnnl_s8, packed->w);
}

struct kernels_packed *onednn_pack(const struct layer *l, size_t n, enum kernels_precision precision,
				   struct pool *pool)
{
	struct product *p = ready() ? product_of(l, n, precision, LAYER_PLAIN, NULL) : NULL;
	struct kernels_packed *packed;
	const dnnl_dims_t dims = { 1, (dnnl_dim_t)l->out }, strides = { (dnnl_dim_t)l->out, 1 };
	md_own b;
	md_in w;
	void *memory;

	if (p == NULL)
		return NULL;
	w = dnnl_primitive_desc_query_md(p->pd, dnnl_query_weights_md, 0);
	memory = pool_take(pool, dnnl_memory_desc_get_size(w), md_order(w));
	if (memory == NULL)
		return NULL;
	packed = xcalloc(1, sizeof(*packed));
	if (!memory_at(&packed->w, w, memory) ||
	    !(precision == KERNELS_INT8 ? reorder_int8(l, packed, pool)
					: pool_filled(pool) || reorder(l, l->w, dnnl_f32, packed->w))) {
		onednn_packed_free(packed);
		return NULL;
	}
	if (l->b != NULL) {
		bool good = md_strided(&b, 2, dims, dnnl_f32, strides);

		if (good) {
			good = memory_at(&packed->b, MD(b), l->b);
			md_release(&b);
		}
		if (!good) {
			onednn_packed_free(packed);
			return NULL;
		}
	}
	return packed;
}

void onednn_packed_free(struct kernels_packed *packed)
{
	if (packed == NULL)
		return;
	(void)dnnl_memory_destroy(packed->w);
	(void)dnnl_memory_destroy(packed->b);
	free(packed);
}

struct int8_work {
	const struct layer *l;
	const struct int8_rows *rows;
	const float *x; /* [n, in] */
	float *y;	/* [n, out] */
	enum layer_end end;
};

VECTOR_CODE
static void add_zero(const int16_t *restrict v, uint8_t *restrict ret, int zero, size_t n)
{
	for (size_t i = 0; i < n; i++)
		ret[i] = (uint8_t)(v[i] + zero);
}

static void int8_before(void *arg, size_t from, size_t to)
{
	const struct int8_work *t = arg;
	size_t in = t->l->in;
	CLEANUP(free) int16_t *row = xcalloc(in, sizeof(*row));

	for (size_t i = from; i < to; i++) {
		t->rows->scale[i] = int8_row(t->x + i * in, row, &t->rows->zero[i], in);
		add_zero(row, t->rows->x + i * in, t->rows->zero[i], in);
	}
}

VECTOR_CODE
static void int8_after(const struct layer *l, const int32_t *restrict sums, float scale, int zero, float *restrict y,
		       enum layer_end end)
{
	const struct kernels_packed *w = l->packed;
	bool add = end == LAYER_ADD;

	for (size_t o = 0; o < l->out; o++) {
		float v = (float)(sums[o] - zero * w->sums[o]) * scale * w->scale[o];

		y[o] = (add ? y[o] : 0) + v;
	}
	for (size_t o = 0; l->b != NULL && o < l->out; o++)
		y[o] += l->b[o];
	for (size_t o = 0; end == LAYER_GELU && o < l->out; o++)
		y[o] = gelu_of(y[o]);
	for (size_t o = 0; end == LAYER_RELU && o < l->out; o++)
		y[o] = y[o] > 0 ? y[o] : 0;
}

static void int8_rows_after(void *arg, size_t from, size_t to)
{
	const struct int8_work *t = arg;
	size_t out = t->l->out;

	for (size_t i = from; i < to; i++)
		int8_after(t->l, t->rows->sums + i * out, t->rows->scale[i], t->rows->zero[i], t->y + i * out, t->end);
}

static bool int8_layer(const struct layer *l, const float *x, float *y, size_t n, enum layer_end end)
{
	struct product *p = product_of(l, n, KERNELS_INT8, end, md_of(l->packed->w));
	struct int8_work work = { .l = l, .x = x, .y = y, .end = end };

	if (p == NULL || !set_place(p->x, p->int8->x) || !set_place(p->y, p->int8->sums))
		return false;
	dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, p->x }, { DNNL_ARG_WEIGHTS, l->packed->w }, { DNNL_ARG_DST, p->y } };
	work.rows = p->int8;
	onednn_each(n, int8_before, &work);
	if (dnnl_primitive_execute(p->primitive, stream, 3, args) != dnnl_success ||
	    dnnl_stream_wait(stream) != dnnl_success)
		return false;
	onednn_each(n, int8_rows_after, &work);
	return true;
}

bool onednn_layer(const struct layer *l, const void *x, void *y, size_t n, enum layer_end end)
{
	if (l->precision == KERNELS_INT8)
		return int8_layer(l, x, y, n, end);

	struct product *p = product_of(l, n, l->precision, end, md_of(l->packed->w));

	if (p == NULL || !set_place(p->x, x) || !set_place(p->y, y))
		return false;
	dnnl_exec_arg_t args[] = {
		{ DNNL_ARG_SRC, p->x },
		{ DNNL_ARG_WEIGHTS, l->packed->w },
		{ DNNL_ARG_DST, p->y },
		{ DNNL_ARG_BIAS, l->packed->b },
	};
	return dnnl_primitive_execute(p->primitive, stream, l->b != NULL ? 4 : 3, args) == dnnl_success &&
	       dnnl_stream_wait(stream) == dnnl_success;
}

/* ---- attention ---- */

struct batched { /* one product a head */
	dnnl_primitive_t primitive;
	dnnl_memory_t a, b, c;
};

struct kernels_packed_attention {
	struct batched scores, mix;
};

static bool batched_make(struct batched *p, md_in a, md_in b, md_in c)
{
	dnnl_primitive_desc_t pd = NULL;
	bool good = matmul_describe(&pd, a, b, NULL, c, NULL, engine) &&
		    dnnl_primitive_create(&p->primitive, pd) == dnnl_success && memory_at(&p->a, a, NULL) &&
		    memory_at(&p->b, b, NULL) && memory_at(&p->c, c, NULL);

	(void)dnnl_primitive_desc_destroy(pd);
	return good;
}

static void batched_release(struct batched *p)
{
	(void)dnnl_primitive_destroy(p->primitive);
	(void)dnnl_memory_destroy(p->a);
	(void)dnnl_memory_destroy(p->b);
	(void)dnnl_memory_destroy(p->c);
}

static bool batched_run(struct batched *p, const void *a, const void *b, void *c)
{
	dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, p->a }, { DNNL_ARG_WEIGHTS, p->b }, { DNNL_ARG_DST, p->c } };

	return set_place(p->a, a) && set_place(p->b, b) && set_place(p->c, c) &&
	       dnnl_primitive_execute(p->primitive, stream, 3, args) == dnnl_success &&
	       dnnl_stream_wait(stream) == dnnl_success;
}

struct kernels_packed_attention *onednn_attention_new(size_t n, size_t dim, size_t heads,
						      enum kernels_precision precision)
{
	dnnl_dim_t t = (dnnl_dim_t)n, h = (dnnl_dim_t)heads, d = (dnnl_dim_t)dim, width = d / h;
	/* [1, heads, n, width] inside [n, dim]; its transpose; [1, heads, n, n] */
	const dnnl_dims_t rows = { 1, h, t, width }, rows_strides = { t * d, width, d, 1 };
	const dnnl_dims_t columns = { 1, h, width, t }, columns_strides = { t * d, width, 1, d };
	const dnnl_dims_t square = { 1, h, t, t }, square_strides = { h * t * t, t * t, t, 1 };
	dnnl_data_type_t type = type_of(precision);
	struct kernels_packed_attention *a;
	md_own q, k, scores, shares;
	bool good;

	if (!ready() || !md_strided(&q, 4, rows, type, rows_strides) ||
	    !md_strided(&k, 4, columns, type, columns_strides) ||
	    !md_strided(&scores, 4, square, dnnl_f32, square_strides) ||
	    !md_strided(&shares, 4, square, type, square_strides))
		return NULL;
	a = xcalloc(1, sizeof(*a));
	good = batched_make(&a->scores, MD(q), MD(k), MD(scores)) && batched_make(&a->mix, MD(shares), MD(q), MD(q));
	md_release(&q);
	md_release(&k);
	md_release(&scores);
	md_release(&shares);
	if (good)
		return a;
	onednn_attention_free(a);
	return NULL;
}

void onednn_attention_free(struct kernels_packed_attention *a)
{
	if (a == NULL)
		return;
	batched_release(&a->scores);
	batched_release(&a->mix);
	free(a);
}

bool onednn_scores(struct kernels_packed_attention *a, const void *q, const void *k, float *scores)
{
	return batched_run(&a->scores, q, k, scores);
}

bool onednn_mix(struct kernels_packed_attention *a, const void *shares, const void *v, void *out)
{
	return batched_run(&a->mix, shares, v, out);
}
