// SPDX-License-Identifier: MIT OR Apache-2.0
/* Dense linear algebra, as LEVEL says, in single and double precision:
 *
 *	1	c = a * b	vector times vector	`--size` elements each
 *	2	c = A * b	matrix times vector	`--size` rows and columns
 *	3	C = A * B	matrix times matrix	`--size` rows and columns
 *
 * The rows of A and C (at level 1, the elements of a and b) are divided among the workers; the
 * whole of B, or b, all of them read. An iteration is one product. */
#ifndef DWARFS_BLAS_H
#define DWARFS_BLAS_H

#include "../common/arguments.h"

static const struct dwarf blas = {
	.usage = " [--type double|float]",
	.takes = "t",
	.size_max = LEVEL == 1 ? UINT64_C(1) << 30 : UINT64_C(1) << 15,
	.standard = {.size = LEVEL == 1 ? 10000 : 100, .measure = {.iters = 1000}},
};

#define REAL float
#define MULTIPLY_ROWS multiply_floats
#include "rows.h"
#undef REAL
#undef MULTIPLY_ROWS
#define REAL double
#define MULTIPLY_ROWS multiply_doubles
#include "rows.h"

/* Two factors and their product, of floats or of doubles; at level 1 a sum for each worker. */
struct product {
	bool single;
	size_t n;
	void *a, *b, *c;
};

/* Elements in a row of A, in a row of C, and in all of B. */
static inline size_t a_row(size_t n)
{
	return LEVEL == 1 ? 1 : n;
}

static inline size_t c_row(size_t n)
{
	return LEVEL == 3 ? n : 1;
}

static inline size_t b_elements(size_t n)
{
	return LEVEL == 3 ? n * n : n;
}

static inline size_t element(bool single)
{
	return single ? sizeof(float) : sizeof(double);
}

/* Bytes of a product whose matrix A has `rows` rows, of them. */
static inline size_t product_bytes(const struct arguments *arguments, size_t rows)
{
	const size_t n = arguments->size;

	return (rows * a_row(n) + b_elements(n) + rows * c_row(n)) * element(arguments->single);
}

/* The product that lies in that memory. */
static inline struct product product_in(void *memory, const struct arguments *arguments, size_t rows)
{
	const size_t n = arguments->size, size = element(arguments->single);
	struct product product = {.single = arguments->single, .n = n, .a = memory};

	product.b = (char *)product.a + rows * a_row(n) * size;
	product.c = (char *)product.b + b_elements(n) * size;
	return product;
}

static inline void set(const struct product *product, void *at, size_t i, double value)
{
	if (product->single)
		((float *)at)[i] = (float)value;
	else
		((double *)at)[i] = value;
}

static inline double get(const struct product *product, const void *at, size_t i)
{
	return product->single ? (double)((const float *)at)[i] : ((const double *)at)[i];
}

/* Fills both factors with numbers between 0 and 1 that are not quite regular. */
static inline void fill(const struct product *product)
{
	for (size_t i = 0; i < product->n * a_row(product->n); i++)
		set(product, product->a, i, (double)(i * 37 % 101 + 1) / 102);
	for (size_t i = 0; i < b_elements(product->n); i++)
		set(product, product->b, i, (double)(i * 53 % 97 + 1) / 98);
}

/* Multiplies the rows from `first` up to `last`. At level 1 the sum of theirs is put to `sum`. */
static inline void multiply(const struct product *product, size_t first, size_t last, double *sum)
{
	const size_t n = product->n, size = element(product->single), rows = last - first;
	const char *a = (const char *)product->a + first * a_row(n) * size;
	const char *b = (const char *)product->b + (LEVEL == 1 ? first * size : 0);
	char *c = (char *)product->c + first * c_row(n) * size;
	float sum_of_floats;

	if (LEVEL == 1 && product->single) {
		multiply_floats((const float *)a, (const float *)b, &sum_of_floats, n, rows);
		*sum = (double)sum_of_floats;
	} else if (LEVEL == 1) {
		multiply_doubles((const double *)a, (const double *)b, sum, n, rows);
	} else if (product->single) {
		multiply_floats((const float *)a, (const float *)b, (float *)c, n, rows);
	} else {
		multiply_doubles((const double *)a, (const double *)b, (double *)c, n, rows);
	}
}

/* Prints the product of level 1, or sums that are wrong if any element of the others is, or in
 * another's place. */
static inline void print_product(const struct product *product, double sum)
{
	double plain = 0, weighted = 0;

	if (LEVEL == 1) {
		print_result("product", sum);
		return;
	}
	for (size_t i = 0; i < product->n * c_row(product->n); i++) {
		double value = get(product, product->c, i);

		plain += value;
		weighted += value * (double)(i % 7 + 1);
	}
	print_result("sum", plain);
	print_result("weighted sum", weighted);
}

/* A product in memory of one's own. */
static inline struct product product_of(const struct arguments *arguments, size_t rows)
{
	return product_in(allocate(product_bytes(arguments, rows)), arguments, rows);
}

#endif
